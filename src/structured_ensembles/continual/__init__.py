"""Streams of tasks: one network that learns one task after the other and forgets none."""

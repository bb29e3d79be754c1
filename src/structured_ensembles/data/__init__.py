"""Labelled examples in one shape, split, in an order that a seed decides."""

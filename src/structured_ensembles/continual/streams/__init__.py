"""A stream of tasks, run and measured."""

"""Networks of our own, a family a file."""

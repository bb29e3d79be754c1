"""Which channels of a network can be cut, what is tied to what, and cutting them."""

"""One network, trained: the loop, when it ends, and what it is resumed from."""

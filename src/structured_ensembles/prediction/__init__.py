"""One module that answers, with its uncertainty."""

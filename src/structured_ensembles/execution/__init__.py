"""Where the runs of a grid are computed."""

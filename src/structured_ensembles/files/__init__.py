"""Files and folders that are whole, or not there, and known to be ours."""

"""One file for each thing that is measured about a finished ensemble: its ``measured`` makes it of a `Subject`."""

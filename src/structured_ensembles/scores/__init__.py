"""From a frozen network to the channels that each member keeps: scale, search, rank, select."""

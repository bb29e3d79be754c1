"""PNG files about a finished ensemble."""

"""What an ensemble will cost, before any training."""

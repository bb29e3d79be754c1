"""Turn one untrained neural network into an ensemble of small sub-networks."""

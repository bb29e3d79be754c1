"""The one safe file that an ensemble is saved to."""

"""Everything that can be chosen, once: the settings, their limits, their words, and the names that can be typed."""

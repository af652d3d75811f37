"""Two models, an adapter and its base, a series."""

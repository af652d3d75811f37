"""Low-rank adapters: pairs of factors by name, their scales, the changes that they make."""

"""Weights beside random matrices: the bulk, what stands out of it, and what causes that."""

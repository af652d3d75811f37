"""Orbax checkpoints: folders, the OCDBT store, zarr arrays."""

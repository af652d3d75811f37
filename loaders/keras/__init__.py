"""Keras's files of weights and models, over the HDF5 reader in `hdf5`."""

"""Time and memory of wwfunc beside its peer, measured by `make bench`."""

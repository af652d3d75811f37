"""HDF5, as much of it as weights need, read by this package itself.

libhdf5 crashes and hangs on damaged files, and what reads all of HDF5 also opens other files.
Here nothing is followed but hard links, nothing is read that does not lie in the file itself,
and all structures together may take no more than `Budget.header_bytes`.
"""

from __future__ import annotations

from .nodes import File, Node, is_hdf5, open_hdf5

__all__ = ["File", "Node", "is_hdf5", "open_hdf5"]

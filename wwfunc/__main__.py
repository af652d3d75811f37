"""`python -m wwfunc` is the command `wwfunc`."""

from wwfunc.cli import entry_point

entry_point()

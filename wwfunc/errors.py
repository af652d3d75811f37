"""Every error that wwfunc raises on purpose."""


class WwfuncError(Exception):
    """Base of all errors that wwfunc raises on purpose."""


class CheckpointError(WwfuncError):
    """A checkpoint that cannot be read; `loaders.errors` holds one subclass for each cause."""


class OptionError(WwfuncError, ValueError):
    """An option with an unknown name or a value outside its range."""


class SelectionError(WwfuncError, ValueError):
    """A `layers=` selector that matches no layer, or selectors that contradict each other."""


class InputError(WwfuncError, TypeError):
    """An argument that holds no named arrays, or an array of the wrong rank."""


class AnalysisFileError(WwfuncError, ValueError):
    """A file that `wwfunc.load_analysis` cannot read."""


class MissingExtraError(WwfuncError, ImportError):
    """An optional dependency that is not installed; the message names the extra to install."""

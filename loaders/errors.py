"""What can be wrong with a checkpoint: one error for each cause, each naming file and tensor."""

from __future__ import annotations

from wwfunc.errors import CheckpointError


class NotReadableError(CheckpointError):
    """The path is missing, or is no regular file or folder."""


class UnknownFormatError(CheckpointError):
    """The content is that of no format that can be loaded; the message says what it looks like."""


class UnsupportedError(CheckpointError):
    """A known format in a variant that is not read; the message says which, and what to do."""


class BudgetError(CheckpointError):
    """The file asks for more than the budget allows; the message names the limit."""


class TruncatedError(CheckpointError):
    """The file ends before the data that its header promises."""


class HeaderError(CheckpointError):
    """The header is not what the format says: not JSON, a wrong type, a duplicate name."""


class LayoutError(CheckpointError):
    """The tensors overlap, leave holes, or do not have the size that their shape asks for."""


class ElementTypeError(CheckpointError):
    """The header names an element type that does not exist or cannot be read."""


class ShardError(CheckpointError):
    """The index and the shards of a checkpoint do not fit together."""


class ConfigError(CheckpointError):
    """A configuration file beside the weights is not a JSON object, or contradicts them."""


class ArchiveError(CheckpointError):
    """A zip or tar archive is damaged, ambiguous or encrypted."""


class PickleError(CheckpointError):
    """A pickle breaks the rules of its format, or does not describe a checkpoint."""


class UnsafeGlobalError(PickleError):
    """A pickle names a callable that is not known to be harmless; the message says which, where."""


class AmbiguousError(CheckpointError):
    """Several parts of the file could be meant; the message lists what `key=` may be."""


class AdapterError(CheckpointError):
    """The factors, ranks or scales of an adapter do not fit together."""

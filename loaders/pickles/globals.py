"""The names that a pickle may call: exact pairs, each harmless even if it were really called."""

from __future__ import annotations

from typing import Any

from .nodes import Global

_UTILS = "torch._utils"
TENSOR = Global(_UTILS, "_rebuild_tensor")
TENSOR_V2 = Global(_UTILS, "_rebuild_tensor_v2")
TENSOR_V3 = Global(_UTILS, "_rebuild_tensor_v3")
PARAMETER = Global(_UTILS, "_rebuild_parameter")
PARAMETER_WITH_STATE = Global(_UTILS, "_rebuild_parameter_with_state")
QUANTISED = Global(_UTILS, "_rebuild_qtensor")
SPARSE = Global(_UTILS, "_rebuild_sparse_tensor")
NESTED = Global(_UTILS, "_rebuild_nested_tensor")
META = Global(_UTILS, "_rebuild_meta_tensor_no_storage")
WRAPPER = Global(_UTILS, "_rebuild_wrapper_subclass")
FROM_CPU = Global(_UTILS, "_rebuild_device_tensor_from_cpu_tensor")
FROM_NUMPY = Global(_UTILS, "_rebuild_device_tensor_from_numpy")
FROM_XLA = Global(_UTILS, "_rebuild_xla_tensor")
PLAIN_TENSORS = frozenset((TENSOR, TENSOR_V2, TENSOR_V3))
PARAMETERS = frozenset((PARAMETER, PARAMETER_WITH_STATE))
MOVED = frozenset((FROM_CPU, FROM_NUMPY, FROM_XLA))
REBUILDS = PLAIN_TENSORS | PARAMETERS | MOVED | {QUANTISED, SPARSE, NESTED, META, WRAPPER}
SUBCLASSES = frozenset(
    Global("torch._tensor", name) for name in ("_rebuild_from_type", "_rebuild_from_type_v2")
)
"""Their first arguments are another function, its class, and its arguments."""

NESTED_FILE = Global("torch.storage", "_load_from_bytes")
LAYOUT = Global("torch.serialization", "_get_layout")
SIZE = Global("torch", "Size")
PACKED = Global("torch", "ScriptObject")
"""The weights of a quantised layer, which no list of parameters has."""
TYPE_TAG = Global("torch.jit._pickle", "restore_type_tag")
JIT_LISTS = frozenset(
    Global("torch.jit._pickle", f"build_{kind}list")
    for kind in ("int", "double", "bool", "tensor", "complex")
)

_KINDS = "Double Float Half BFloat16 Long Int Short Char Byte Bool ComplexDouble ComplexFloat"
TENSOR_CLASSES = frozenset(
    Global(module, f"{kind}Tensor")
    for module in ("torch", "torch.cuda")
    for kind in ("", *_KINDS.split())
) | {Global("torch._tensor", "Tensor"), Global("torch.tensor", "Tensor")}
PARAMETER_CLASSES = frozenset(
    (
        Global("torch.nn.parameter", "Parameter"),
        Global("torch.nn.parameter", "Buffer"),
        Global("torch.autograd.variable", "Variable"),
        Global("torch.autograd", "Variable"),
    )
)

_CORES = ("numpy.core", "numpy._core")
ARRAYS = frozenset(Global(f"{core}.multiarray", "_reconstruct") for core in _CORES)
ARRAY_BUFFERS = frozenset(Global(f"{core}.numeric", "_frombuffer") for core in _CORES)
SCALARS = frozenset(Global(f"{core}.multiarray", "scalar") for core in _CORES)
JAX_ARRAYS = frozenset(
    (
        Global("jax._src.array", "_reconstruct_array"),
        Global("jax._src.device_array", "reconstruct_device_array"),
    )
)
"""Their first arguments are how NumPy makes an array, its arguments, and its state."""

NDARRAY = Global("numpy", "ndarray")
DTYPE = Global("numpy", "dtype")
ENCODE = Global("_codecs", "encode")

SET = Global("builtins", "set")
FROZENSET = Global("builtins", "frozenset")
BYTEARRAY = Global("builtins", "bytearray")
LIST = Global("builtins", "list")
TUPLE = Global("builtins", "tuple")
DICT = Global("builtins", "dict")
OBJECT = Global("builtins", "object")
ORDERED_DICT = Global("collections", "OrderedDict")
DEFAULT_DICT = Global("collections", "defaultdict")
COUNTER = Global("collections", "Counter")
DEQUE = Global("collections", "deque")
MAPPINGS = frozenset((DICT, ORDERED_DICT, DEFAULT_DICT, COUNTER))
SEQUENCES = frozenset((LIST, TUPLE, SET, FROZENSET, DEQUE))
RECONSTRUCTOR = Global("copyreg", "_reconstructor")
NEW_OBJECT = Global("copyreg", "__newobj__")
RECONSTRUCTORS = frozenset((RECONSTRUCTOR, NEW_OBJECT))
"""They make an empty object of the class that is their first argument."""

_PLAIN = """
builtins complex
builtins slice
builtins range
builtins xrange
builtins int
builtins float
builtins long
builtins bool
builtins str
builtins unicode
builtins bytes
datetime date
datetime datetime
datetime time
datetime timedelta
datetime timezone
decimal Decimal
fractions Fraction
uuid UUID
uuid SafeUUID
argparse Namespace
types SimpleNamespace
pathlib Path
pathlib PurePath
pathlib PosixPath
pathlib PurePosixPath
pathlib WindowsPath
pathlib PureWindowsPath
pathlib._local Path
pathlib._local PurePath
pathlib._local PosixPath
pathlib._local PurePosixPath
pathlib._local WindowsPath
pathlib._local PureWindowsPath
numpy.random._pickle __randomstate_ctor
numpy.random._pickle __generator_ctor
numpy.random._pickle __bit_generator_ctor
numpy.random __RandomState_ctor
numpy.random.bit_generator SeedSequence
numpy.random.bit_generator __pyx_unpickle_SeedSequence
numpy.random._mt19937 MT19937
numpy.random._pcg64 PCG64
numpy.random._pcg64 PCG64DXSM
numpy.random._philox Philox
numpy.random._sfc64 SFC64
torch device
torch Generator
torch.random Generator
torch.torch_version TorchVersion
torch.distributed.fsdp.api StateDictType
pytorch_lightning.trainer.states RunningStage
pytorch_lightning.trainer.states TrainerFn
pytorch_lightning.trainer.states TrainerStatus
lightning.pytorch.trainer.states RunningStage
lightning.pytorch.trainer.states TrainerFn
lightning.pytorch.trainer.states TrainerStatus
transformers.trainer_utils IntervalStrategy
transformers.trainer_utils SaveStrategy
transformers.trainer_utils EvaluationStrategy
transformers.trainer_utils LoggingStrategy
transformers.trainer_utils SchedulerType
transformers.trainer_utils HubStrategy
transformers.trainer_utils FSDPOption
transformers.training_args OptimizerNames
transformers.training_args ParallelMode
transformers.debug_utils DebugOption
accelerate.utils.dataclasses DistributedType
accelerate.utils.dataclasses PrecisionType
peft.utils.peft_types PeftType
peft.utils.peft_types TaskType
"""

CALLABLE = frozenset(
    {Global(*line.split()) for line in _PLAIN.split("\n") if line}
    | REBUILDS
    | {NESTED_FILE, LAYOUT, SIZE, TYPE_TAG, ENCODE, BYTEARRAY, NDARRAY, DTYPE}
    | JIT_LISTS
    | TENSOR_CLASSES
    | PARAMETER_CLASSES
    | ARRAYS
    | ARRAY_BUFFERS
    | SCALARS
    | MAPPINGS
    | SEQUENCES
)


def culprit(function: Global, args: tuple[Any, ...]) -> Global | None:
    """The name that makes a call suspect: the function, or one that it would call in turn."""
    if function in CALLABLE:
        return None
    if function in SUBCLASSES:
        inner = _named(args, 0)
        return None if inner in REBUILDS else inner or function
    if function in JAX_ARRAYS:
        inner = _named(args, 0)
        return None if inner in ARRAYS else inner or function
    if function == RECONSTRUCTOR:
        base = _named(args, 1)
        return None if base == OBJECT and len(args) == 3 else base or function
    return None if function == NEW_OBJECT else function


def _named(args: tuple[Any, ...], place: int) -> Global | None:
    argument = args[place] if len(args) > place else None
    return argument if type(argument) is Global else None

"""Every choice that a user can make, in one frozen, hashable, picklable record."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from typing import Any, Literal, NamedTuple, get_args

from wwfunc import checks
from wwfunc.checks import Check, Selector
from wwfunc.errors import OptionError

Fit = Literal["PL", "TPL", "E_TPL"]
FixFingers = Literal["xmin_peak", "clip_xmax"]
PeakRange = Literal["intended", "weightwatcher"]
Threshold = Literal["absolute", "relative"]
SmallSample = Literal["corrected", "mle"]
KS = Literal["one-sided", "two-sided"]
MPMethod = Literal["tracy-widom", "kde"]
Engine = Literal["auto", "host", "jax"]
Peft = Literal["peft_only", "with_base"]
DistanceMethod = Literal[
    "raw", "euclidean", "cka", "centred_cka", "subspace", "wasserstein", "jensen_shannon"
]

FITS: tuple[Fit, ...] = get_args(Fit)
FIX_FINGERS: tuple[FixFingers, ...] = get_args(FixFingers)
PEAK_RANGES: tuple[PeakRange, ...] = get_args(PeakRange)
THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)
SMALL_SAMPLES: tuple[SmallSample, ...] = get_args(SmallSample)
KS_DISTANCES: tuple[KS, ...] = get_args(KS)
MP_METHODS: tuple[MPMethod, ...] = get_args(MPMethod)
ENGINES: tuple[Engine, ...] = get_args(Engine)
PEFTS: tuple[Peft, ...] = get_args(Peft)
DISTANCES: tuple[DistanceMethod, ...] = get_args(DistanceMethod)


class Method(NamedTuple):
    """How a tail is fitted: the choices that a program is compiled for. See `Options`."""

    fit: Fit = "PL"
    fix_fingers: FixFingers | None = None
    peak_range: PeakRange = "intended"
    max_fingers: int = 9
    finger_thresh: float = 1.0
    threshold: Threshold = "absolute"
    small_sample: SmallSample = "corrected"
    ks: KS = "one-sided"
    free_alpha: bool = False
    inverse: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to analyse and how."""

    layers: tuple[Selector, ...] = ()
    """Layer ids, names, types, kinds or patterns; negative ids are left out; () takes all."""
    min_evals: int = 8
    """A layer with fewer eigenvalues is a row without numbers."""
    max_evals: int | None = None
    """A layer with more eigenvalues is a row without numbers."""
    max_N: int | None = None
    """A layer whose longer side is longer is a row without numbers."""
    fit: Fit = "PL"
    """A power law, a truncated one, or ("E_TPL") a truncated one with fix_fingers="xmin_peak"."""
    xmin: float | None = None
    """Where every tail starts; None looks for the best start."""
    xmin_min: float | None = None
    """Smallest xmin that is tried."""
    xmin_max: float | None = None
    """Largest xmin that is tried."""
    xmax: int | float | None = None
    """Larger eigenvalues are not fitted; an integer, always negative here, -k leaves out the k
    largest."""
    fix_fingers: FixFingers | None = None
    """Against spurious alphas: look for xmin near the peak of the ESD ("xmin_peak"), or leave out
    the largest eigenvalues until alpha falls ("clip_xmax")."""
    peak_range: PeakRange = "intended"
    """For "xmin_peak": 0.95 to 1.5 times the peak, or WeightWatcher's, whose lower end is its
    logarithm by mistake."""
    max_fingers: int = 9
    """For "clip_xmax": most eigenvalues that are left out."""
    finger_thresh: float = 1.0
    """For "clip_xmax": by more than so much alpha must fall."""
    threshold: Threshold = "absolute"
    """Fit eigenvalues above 1e-5 ("absolute"), or all that rounding resolves ("relative")."""
    small_sample: SmallSample = "corrected"
    """Correct the bias of alpha under 20 eigenvalues ("corrected"), or never ("mle")."""
    ks: KS = "one-sided"
    """KS distance that chooses xmin: WeightWatcher's, or the supremum."""
    free_alpha: bool = False
    """Let the truncated power law's alpha fall under 1, down to -5."""
    trust: bool = False
    """Intervals, p-values, alternatives and a verdict for each fit."""
    replicates: int = 1000
    """Resampled spectra behind each interval and each p-value, from 19."""
    seed: int = 0
    """Of the resampling: each layer's own key is made of it and of the layer's name."""
    farms: bool = False
    """Alpha over windows of a fixed aspect ratio as well."""
    farms_rows: int | None = None
    """Smaller side of a window; None takes half of the layer's, at most 2,000."""
    farms_aspect: float = 1.0
    """Longer side of a window over its smaller side, from 1."""
    farms_windows: int = 10
    """Windows along each side of the matrix."""
    mp_fit: bool = False
    """Fit a Marchenko-Pastur law to the bulk: sigma, edges, spikes, soft rank."""
    mp_method: MPMethod = "tracy-widom"
    """Take spikes away and average ("tracy-widom"), or WeightWatcher's fit of a density ("kde")."""
    randomize: bool = False
    """The same of the weights in random order, correlation traps among it."""
    detX: bool = False
    """The ERG (trace-log) condition: the tail whose determinant is 1."""
    vectors: bool = False
    """Localisation of the singular vectors, in the bulk and in the tail."""
    ranks: bool = False
    """Effective and energy ranks, each beside that of a random matrix."""
    deltas: bool = False
    """Level spacings."""
    pool: bool = True
    """The slices of a convolution together, or (False) a row for each."""
    inverse: bool = False
    """Fit 1 / lambda: the smallest eigenvalues."""
    glorot_fix: bool = False
    """Scale each layer as if it had been initialised with unit variance by Glorot's rule."""
    conv2d_fft: int | None = None
    """Take a convolution as one operator on a periodic grid of this side; True is 32."""
    peft: Peft = "peft_only"
    """With a base model: the change of each layer, or ("with_base") base, delta and merged."""
    intruders: bool = False
    """With a base model: count the intruder dimensions of each change."""
    scale: bool = True
    """Multiply low-rank changes by their scale; WeightWatcher takes B A as it is (False)."""
    engine: Engine = "auto"
    """Eigenvalues by LAPACK ("host"), by JAX's device ("jax"), or by what JAX runs on ("auto")."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            checked = _CHECKS[field.name](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, checked)
        _check_together(self)

    @property
    def method(self) -> Method:
        """How to fit: E_TPL is written out."""
        chosen = {name: getattr(self, name) for name in Method._fields}
        if self.fit == "E_TPL":
            chosen |= {"fit": "TPL", "fix_fingers": "xmin_peak"}
        return Method(**chosen)


def make_options(base: Options | None = None, **changes: Any) -> Options:
    """`base` with `changes`; an unknown name is refused with the nearest that exists."""
    if base is not None and not isinstance(base, Options):
        raise OptionError(f"options= takes an Options record, not {base!r}")
    known = [field.name for field in dataclasses.fields(Options)]
    for name in changes:
        if name not in known:
            raise OptionError(f"there is no option {name!r}{_nearest(name, known)}")
    return dataclasses.replace(base or Options(), **changes)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _check_together(options: Options) -> None:
    """Refuse what makes no sense together."""
    if options.fit != "PL" and options.fix_fingers == "clip_xmax":
        raise OptionError("fix_fingers='clip_xmax' is for fit='PL', not for a truncated power law")
    if options.method.fix_fingers and options.xmin is not None:
        looking = (
            "fit='E_TPL'" if options.fit == "E_TPL" else f"fix_fingers={options.fix_fingers!r}"
        )
        raise OptionError(
            f"{looking} looks for xmin itself: xmin={options.xmin} leaves nothing to look for"
        )
    for low, high in itertools.product(("xmin", "xmin_min"), ("xmin_max", "xmax")):
        least, most = getattr(options, low), getattr(options, high)
        if isinstance(least, float) and isinstance(most, float) and least > most:
            raise OptionError(f"{low}={least} is above {high}={most}")


_CHECKS: dict[str, Check] = {
    "layers": checks.selectors,
    "min_evals": checks.count,
    "max_evals": checks.or_none(checks.count),
    "max_N": checks.or_none(checks.count),
    "fit": checks.one_of(*FITS),
    "xmin": checks.or_none(checks.positive),
    "xmin_min": checks.or_none(checks.positive),
    "xmin_max": checks.or_none(checks.positive),
    "xmax": checks.or_none(checks.xmax),
    "fix_fingers": checks.or_none(checks.one_of(*FIX_FINGERS)),
    "peak_range": checks.one_of(*PEAK_RANGES),
    "max_fingers": checks.count,
    "finger_thresh": checks.positive,
    "threshold": checks.one_of(*THRESHOLDS),
    "small_sample": checks.one_of(*SMALL_SAMPLES),
    "ks": checks.one_of(*KS_DISTANCES),
    "free_alpha": checks.flag,
    "trust": checks.flag,
    "replicates": checks.replicates,
    "seed": checks.seed,
    "farms": checks.flag,
    "farms_rows": checks.or_none(checks.count),
    "farms_aspect": checks.aspect,
    "farms_windows": checks.count,
    "mp_fit": checks.flag,
    "mp_method": checks.one_of(*MP_METHODS),
    "randomize": checks.flag,
    "detX": checks.flag,
    "vectors": checks.flag,
    "ranks": checks.flag,
    "deltas": checks.flag,
    "pool": checks.flag,
    "inverse": checks.flag,
    "glorot_fix": checks.flag,
    "conv2d_fft": checks.grid,
    "peft": checks.one_of(*PEFTS),
    "intruders": checks.flag,
    "scale": checks.flag,
    "engine": checks.one_of(*ENGINES),
}
"""One check for each option, which returns the plain Python value."""

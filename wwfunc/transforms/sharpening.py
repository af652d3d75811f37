"""Take correlation traps out of weights: the elements that cause them, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, UInt32

from wwfunc.checks import count
from wwfunc.keys import check_key
from wwfunc.matrices import as_stack
from wwfunc.options import MPMethod
from wwfunc.pytrees import Array
from wwfunc.randommatrix.spikes import look
from wwfunc.randommatrix.traps import Element, causes, failed_slices
from wwfunc.status import Status

FEW = 8
"""A row or column with more large elements than this is large as a whole ..."""
FEW_OF = 4
"""... or with more than this part of its length, where it is short."""
MANY = 32
"""So is a slice with more elements over theta_c than this and than a quarter of its smaller side,
..."""
MANY_OF = 20
"""... or than this part of those that are not zero: a diagonal, or a sparse one."""
SPARSE = 10
"""Where less than this part is not zero, what is left of a pruned matrix is large by design."""
NOISE = 4.0
"""Large is what is over theta_c / 2 and over so many sigma: in a narrow matrix noise is not far
from theta_c."""


class Part(NamedTuple):
    """A row or column of a slice, or all of it (place 0)."""

    kind: Literal["row", "column", "slice"]
    slice: int
    place: int

    def __str__(self) -> str:
        whole = f"slice {self.slice}"
        return whole if self.kind == "slice" else f"{self.kind} {self.place} of {whole}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sharpened:
    """New weights, and what was done to them."""

    W: Float[np.ndarray, "*slices n m"]
    """In the shape and type of the old ones, which are unchanged."""
    removed: tuple[Element, ...]
    """Elements that are zero now, with their old values, in the order of their removal."""
    left: tuple[Part, ...]
    """Rows, columns, slices that cause spikes as a whole, and were left as they are."""
    failures: dict[int, Status]
    """Slices that could not be looked at, and why."""
    clean: bool
    """Whether the last shuffles showed no trap, in any slice."""
    rounds: int
    """How many shuffles were looked at."""
    message: str
    """What happened, in words."""

    def __repr__(self) -> str:
        return f"Sharpened({self.message})"


class Large(NamedTuple):
    """What of a slice is large as a whole."""

    rows: Bool[np.ndarray, " n"]
    columns: Bool[np.ndarray, " m"]
    slice: bool
    """Whether too many elements outside of these are over theta_c."""


class Seen(NamedTuple):
    """What one shuffle showed."""

    elements: list[Element]
    """To be set to zero."""
    left: set[Part]
    failures: dict[int, Status]


def remove_traps(
    key: Array | UInt32[Array, " 2"],
    W: Float[ArrayLike, "*slices n m"],
    *,
    method: MPMethod = "tracy-widom",
    quantile: float = 0.999,
    keys: int = 5,
    rounds: int = 50,
) -> Sharpened:
    r"""Set the elements to zero that cause correlation traps.

    .. math:: W_{\pi(ij)} \to 0, \quad (i, j) = \arg\max |u_i P_{ij} v_j|, \quad
              |P_{ij}| \ge \theta_c = \sigma (n m)^{1/4}

    for each spike of the shuffled weights P, with its singular vectors u and v; then again with
    another shuffle, until `keys` shuffles in a row show none.

    Parameters
    ----------
    key
        JAX's random key; every shuffle follows from it.
    W
        A matrix (n, m) or a stack (k, n, m), of any floating-point type. Each slice is shuffled
        in itself.
    method, quantile
        As for `analyze_traps`.
    keys
        So many shuffles in a row without a trap end the search.
    rounds
        So many shuffles end it in any case.

    Returns
    -------
    Sharpened
        `clean` is False, and `message` says why, where rounds ran out, where a row or column is
        the outlier, and where a slice has NaN or infinity.

    Raises
    ------
    InputError
        If `key` is not one random key, or W not a matrix or a stack of matrices of
        floating-point numbers.
    OptionError
        If an option is outside its range.

    Notes
    -----
    The eigenvalues of k m x m matrices in each round, m the smaller side, and the vectors of those
    that have spikes. On the host, in float64; not under `jit`.

    Nothing under theta_c is touched, however many shuffles are looked at: chance has no such
    element, so that repeating the test does not multiply its error. Where more than 8 elements of
    one row or column (or a quarter of it) exceed theta_c / 2 and 4 sigma it is large as a whole: a
    few zeros would not cure it, and it may be meant to be so. It is left. So is a slice with more
    elements over theta_c elsewhere than 32 and a quarter of its smaller side, or than a twentieth
    of those that are not zero, and one of which nine tenths are zero: a diagonal, or what pruning
    left, is not noise with a few large elements in it. Where so many eigenvalues are zero that no
    noise can be told, nothing is done.

    What stood at a removed element's place before it grew is not known. Zero is off by about sigma,
    which turns the directions of a weak signal a little in a small matrix.

    Elements drawn from a heavy-tailed law (Student's t with few degrees of freedom) have no gap
    between large and ordinary ones: those that make spikes are removed, down to theta_c, which may
    be dozens in a layer, and another key may show another one that is barely over it. Whether a
    network needs such weights the matrix cannot tell; some large language models break down without
    a single one of theirs. Compare the accuracy afterwards.

    WeightWatcher's way is another one: it sets as many of W's own top singular values to zero as
    the shuffled W has spikes, which takes signal away and leaves the elements.

    References
    ----------
    Martin, Mahoney, JMLR 22 (2021), arXiv:1810.01075. Yu, Wang, Shan, Reed, Wan, The super weight
    in large language models (2024), arXiv:2411.07191.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc.transforms.sharpening as sharpening
    >>> W = np.random.default_rng(0).standard_normal((300, 200))
    >>> W[17, 42] = 60
    >>> sharpened = sharpening.remove_traps(jax.random.key(0), W)
    >>> sharpened
    Sharpened(set 1 element to zero)
    >>> sharpened.W[17, 42], sharpened.removed[0].value
    (np.float64(0.0), 60.0)
    """
    one, most, wanted = check_key(key), count("rounds", rounds), count("keys", keys)
    given = as_stack(W, "remove_traps")
    new = given.copy()
    seen: list[Seen] = []
    quiet = 0
    while quiet < wanted and len(seen) < most:
        seen.append(_look(jax.random.fold_in(one, len(seen)), given, new, method, quantile))
        for element in seen[-1].elements:
            new[element.slice, element.row, element.column] = 0
        quiet = 0 if seen[-1].elements else quiet + 1
    spared = {part.slice for one in seen for part in one.left if part.kind == "slice"}
    for index in spared:
        new[index] = given[index]  # half of what it is made of is no trap either
    removed = [cause for one in seen for cause in one.elements if cause.slice not in spared]
    return _sharpened(new.reshape(np.shape(W)), removed, seen, quiet >= wanted)


def _look(
    key: Array | UInt32[Array, " 2"],
    given: Float[np.ndarray, "k n m"],
    new: Float[np.ndarray, "k n m"],
    method: MPMethod,
    quantile: float,
) -> Seen:
    """One shuffle of `new`: for each spike its first cause, unless a whole line is the outlier."""
    noise, spikes = look(key, new, method, quantile)
    elements: dict[tuple[int, int, int], Element] = {}
    left: set[Part] = set()
    for index, group in itertools.groupby(spikes, lambda spike: spike.slice):
        sigma, theta_c = noise.sigma[index], noise.theta_c[index]
        large = _large(given[index], sigma, theta_c)
        for element in (element for spike in group for element in causes(spike, theta_c)[:1]):
            parts = _parts(large, element)
            left |= parts
            if not parts:
                elements[element.slice, element.row, element.column] = element
    return Seen(list(elements.values()), left, failed_slices(noise.status))


def _large(matrix: Float[np.ndarray, "n m"], sigma: float, theta_c: float) -> Large:
    size = np.abs(matrix.astype(np.float64))
    large = size > max(theta_c / 2, NOISE * sigma)
    rows, columns = (
        large.sum(axis) > max(1, min(FEW, large.shape[axis] // FEW_OF)) for axis in (1, 0)
    )
    side, filled = min(size.shape), np.count_nonzero(size)
    most = min(side - 1, max(MANY, side // FEW_OF), filled // MANY_OF)
    scattered = np.count_nonzero(size[~rows][:, ~columns] >= theta_c)
    crowded = scattered > max(1, most) or filled < size.size // SPARSE
    return Large(rows, columns, bool(crowded))


def _parts(large: Large, element: Element) -> set[Part]:
    """What is large as a whole: the slice, or the element's row, its column, both; or nothing."""
    if large.slice:
        return {Part("slice", element.slice, 0)}
    row = Part("row", element.slice, element.row)
    column = Part("column", element.slice, element.column)
    pairs = (row, large.rows[element.row]), (column, large.columns[element.column])
    return {part for part, whole in pairs if whole}


def _sharpened(
    W: Float[np.ndarray, "*slices n m"], removed: list[Element], seen: list[Seen], quiet: bool
) -> Sharpened:
    left = tuple(sorted(set().union(*(one.left for one in seen))))
    failures = seen[-1].failures
    count = f"{len(removed)} element{'' if len(removed) == 1 else 's'}"
    nothing = "nothing set to zero" if left or failures else "no trap that single elements make"
    words = [f"set {count} to zero" if removed else nothing]
    words += [f"left {part}: too many of its elements are large" for part in left]
    if not quiet:
        words.append(f"not finished after {len(seen)} shuffles")
    words += [f"slice {part}: {status.sentence}" for part, status in failures.items()]
    return Sharpened(
        W=W,
        removed=tuple(removed),
        left=left,
        failures=failures,
        clean=quiet and not left and not failures,
        rounds=len(seen),
        message="; ".join(words),
    )

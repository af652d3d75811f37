"""Correlation traps: spikes of the shuffled weights, and the elements that make them.

A shuffle destroys what rows and columns have in common and keeps each element. A spike that is
there afterwards is none of the correlations that learning builds: elements make it that are
larger than noise of this size has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Float, Int, UInt32

from wwfunc.matrices import as_stack
from wwfunc.options import MPMethod
from wwfunc.pytrees import Array
from wwfunc.randommatrix.spikes import SliceNoise, Spike, look
from wwfunc.status import Status

LOCAL = 5.0
"""An element is a cause where |u_i v_j| is so many times that of directions spread evenly."""


@dataclass(frozen=True, kw_only=True)
class Element:
    """One weight, and how far it stands out of the noise around it."""

    slice: int
    row: int
    column: int
    value: float
    strength: float
    r"""\|w\| / theta_c: from 1 on an element makes a spike by itself."""
    share: float
    """Its part u_i P_ij v_j of the spike's singular value; the parts of all elements sum to 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trap:
    """A spike of the shuffled weights P, its directions, and the elements that cause it."""

    slice: int
    eigenvalue: float
    """Of P^T P."""
    left: Float[np.ndarray, " n"]
    """The left singular vector of P; its rows are those of the shuffled matrix."""
    right: Float[np.ndarray, " m"]
    row_shares: Float[np.ndarray, " n"]
    """How much of the spike each row of W causes, wherever the shuffle took its elements: sum 1."""
    column_shares: Float[np.ndarray, " m"]
    elements: tuple[Element, ...]
    """Those over theta_c in which the spike is localised, by decreasing share."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Traps:
    """The spikes of one shuffle of W."""

    traps: tuple[Trap, ...]
    """Spikes that elements cause, slice by slice, the largest first."""
    others: tuple[Trap, ...]
    """Spikes without such an element: chance, the mean of W, or neighbours in this one shuffle."""
    sigma: Float[np.ndarray, " slices"]
    """Standard deviation of the noise in each slice."""
    theta_c: Float[np.ndarray, " slices"]
    """Strength from which on an element makes a spike: sigma (n m)^(1/4)."""
    edge: Float[np.ndarray, " slices"]
    """An eigenvalue above it is a spike."""
    status: Int[np.ndarray, " slices"]
    """A `Status` code for each slice."""

    @property
    def failures(self) -> dict[int, Status]:
        """Slices that could not be looked at, and why."""
        return failed_slices(self.status)

    @property
    def num_traps(self) -> int | None:
        """Number of traps, None where a slice failed."""
        return None if self.failures else len(self.traps)

    @property
    def num_spikes(self) -> int | None:
        """Number of all spikes of the shuffled W, None where a slice failed."""
        return None if self.failures else len(self.traps) + len(self.others)

    def __repr__(self) -> str:
        if self.failures:
            return f"Traps({next(iter(self.failures.values())).sentence})"
        lines = [f"Traps(num_traps={self.num_traps}, num_spikes={self.num_spikes})"]
        return "\n".join([*lines, *map(self._line, self.traps)])

    def _line(self, trap: Trap) -> str:
        causes = ", ".join(
            f"W[{e.row}, {e.column}] = {e.value:.3g} ({e.strength:.1f} theta_c)"
            for e in trap.elements
        )
        where = f"slice {trap.slice}: " if len(self.status) > 1 else ""
        edge = self.edge[trap.slice]
        return f"  {where}eigenvalue {trap.eigenvalue:.3g} over the edge {edge:.3g}: {causes}"


def analyze_traps(
    key: Array | UInt32[Array, " 2"],
    W: Float[ArrayLike, "*slices n m"],
    *,
    method: MPMethod = "tracy-widom",
    quantile: float = 0.999,
) -> Traps:
    r"""Find the spikes of the shuffled weights and the elements that cause them.

    .. math:: P = W_{\pi}, \quad \lambda(P^T P) > \lambda_{+}, \quad
              |w| \ge \theta_c = \sigma (n m)^{1/4}

    Noise of standard deviation sigma with one element w added has an eigenvalue outside of its
    bulk if and only if \|w\| is above theta_c, in the limit of large matrices.

    Parameters
    ----------
    key
        JAX's random key; the shuffle follows from it alone.
    W
        A matrix (n, m) or a stack (k, n, m), of any floating-point type. Each slice is shuffled
        in itself.
    method
        How sigma and the edge are found. "tracy-widom": see `mp_fit`, in each slice by itself.
        "kde": WeightWatcher's, from all slices together.
    quantile
        Of the largest eigenvalue of such noise, for "tracy-widom": the chance that a W of pure
        noise shows no spike, all its slices together.

    Returns
    -------
    Traps
        A slice with NaN or infinity has a `Status` code, and `num_traps` is None.

    Raises
    ------
    InputError
        If `key` is not one random key, or W not a matrix or a stack of matrices of
        floating-point numbers.
    OptionError
        If an option is outside its range.

    Notes
    -----
    O(n m^2) and the eigenvalues of one m x m matrix for each slice, m its smaller side; as much
    again for the vectors of a slice that has spikes. On the host, in float64; not under `jit`.

    A spike counts as a trap where an element over theta_c carries at least five times what it
    would in a direction that is spread evenly. What is left are `others`: chance, which at the
    default quantile is one shuffle in a thousand; a mean of W far from zero; and several smaller
    elements that this shuffle put into one row or column, and another one would not.

    References
    ----------
    Benaych-Georges, Nadakuditi, J. Multivariate Anal. 111 (2012), doi:10.1016/j.jmva.2012.04.019,
    on theta_c. Martin, Mahoney, JMLR 22 (2021), arXiv:1810.01075, on randomised layers.

    Examples
    --------
    >>> import jax, numpy as np, wwfunc.randommatrix.traps as traps
    >>> W = np.random.default_rng(0).standard_normal((300, 200))
    >>> W[17, 42] = 60
    >>> traps.analyze_traps(jax.random.key(0), W)
    Traps(num_traps=1, num_spikes=1)
      eigenvalue 4.11e+03 over the edge 1.04e+03: W[17, 42] = 60 (3.8 theta_c)
    """
    stack = as_stack(W, "analyze_traps")
    noise, spikes = look(key, stack, method, quantile)
    found = [_trap(spike, noise) for spike in spikes]
    return Traps(
        traps=tuple(trap for trap in found if trap.elements),
        others=tuple(trap for trap in found if not trap.elements),
        **noise._asdict(),
    )


def failed_slices(status: Int[np.ndarray, " slices"]) -> dict[int, Status]:
    """Slices that could not be looked at, and why; one of zeros alone has no traps."""
    codes = {index: Status(int(code)) for index, code in enumerate(status)}
    return {i: code for i, code in codes.items() if code.failed and code != Status.ALL_ZERO}


def causes(spike: Spike, theta_c: float) -> tuple[Element, ...]:
    """Elements over theta_c in which the spike is localised, by decreasing share."""
    if not theta_c > 0:
        return ()  # without a bulk there is nothing to stand out of
    size = np.abs(spike.P)
    rows, cols = np.nonzero(size >= theta_c)
    weight = spike.left[rows] * spike.right[cols]
    local = np.abs(weight) * np.sqrt(size.size) >= LOCAL
    share = weight * spike.P[rows, cols] / spike.s
    found = []
    for i in sorted(np.flatnonzero(local), key=lambda i: -abs(share[i])):
        place = rows[i], cols[i]
        row, column = divmod(int(spike.positions[rows[i] * size.shape[1] + cols[i]]), size.shape[1])
        element = Element(
            slice=spike.slice,
            row=row,
            column=column,
            value=float(spike.P[place]),
            strength=float(size[place] / theta_c),
            share=float(share[i]),
        )
        found.append(element)
    return tuple(found)


def _trap(spike: Spike, noise: SliceNoise) -> Trap:
    n, m = spike.P.shape
    parts = spike.left[:, None] * spike.P * (spike.right / spike.s)
    rows, columns = np.divmod(spike.positions, m)
    return Trap(
        slice=spike.slice,
        eigenvalue=spike.s**2,
        left=spike.left,
        right=spike.right,
        row_shares=np.bincount(rows, parts.ravel(), n),
        column_shares=np.bincount(columns, parts.ravel(), m),
        elements=causes(spike, noise.theta_c[spike.slice]),
    )

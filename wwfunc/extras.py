"""What the options add to a layer's numbers: each part only where it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from wwfunc.fits.powerlaw import PowerLawFit
from wwfunc.fits.truncated import TruncatedPowerLawFit
from wwfunc.levels import spacings_of
from wwfunc.options import MPMethod, Options
from wwfunc.pytrees import Array, record
from wwfunc.randommatrix.gaussianranks import mean_ranks
from wwfunc.randommatrix.marchenkopastur import MPFit, fit_bulk
from wwfunc.randommatrix.randomised import randomised, replicas
from wwfunc.randommatrix.shuffling import Shuffles
from wwfunc.randommatrix.slices import Slices, fit_slices, whole
from wwfunc.randommatrix.tracelog import erg_of
from wwfunc.randommatrix.tracywidom import quantile
from wwfunc.softranks import Ranks, ranks_of
from wwfunc.spectrum import ESD, inverted
from wwfunc.vectors import Localization, VectorMetrics, bulk_and_tail

SPIKE_QUANTILE = 0.99
"""A random matrix has an eigenvalue that counts as a spike once in a hundred times ..."""
TRAP_QUANTILE = 0.999
"""... and one that counts as a trap once in a thousand: a trap is an alarm."""

LEAST_SIDE = 8
"""Under it the Tracy-Widom law does not say how large the largest eigenvalue is."""


class Wanted(NamedTuple):
    """Which parts a program is compiled for. See `Options`."""

    randomize: bool
    detX: bool
    ranks: bool
    deltas: bool
    inverse: bool


@record
class Shape:
    """The sides of a layer's matrices, and what follows from them."""

    N: Int[Array, ""]
    M: Int[Array, ""]
    slices: Int[Array, ""]
    replicas: Int[Array, ""]
    """How many shuffled copies there are."""
    spike: Float[Array, ""]
    """Tracy-Widom quantile of the largest of all slices."""
    trap: Float[Array, ""]
    """The same for all slices of all shuffled copies, at the level of an alarm."""


def wanted(options: Options) -> Wanted | None:
    """The parts that the options ask for; None where they ask for none."""
    asked = Wanted(**{name: getattr(options, name) for name in Wanted._fields})
    parts = set(Wanted._fields) - {"inverse"}
    return asked if any(getattr(asked, part) for part in parts) else None


def shape_of(N: int, M: int, slices: int) -> Shape:
    """The shape of a layer as arrays."""
    copies = replicas(M * slices)
    return Shape(
        N=np.asarray(N, np.int32),
        M=np.asarray(M, np.int32),
        slices=np.asarray(slices, np.int32),
        replicas=np.asarray(copies, np.int32),
        spike=np.asarray(quantile(SPIKE_QUANTILE, of=slices)),
        trap=np.asarray(quantile(TRAP_QUANTILE, of=slices * copies)),
    )


@functools.partial(jax.jit, static_argnames="wanted")
def extras_of(
    spectrum: ESD,
    fit: PowerLawFit | TruncatedPowerLawFit,
    shuffled: tuple[ESD, ESD] | None,
    shape: Shape | None,
    wanted: Wanted,
) -> dict[str, Any]:
    """The records that are asked for, by their field in `Measures`.

    `shuffled` are the spectra of the first shuffle and of all. Without a shape those records are
    left out that compare with random matrices of it.
    """
    found: dict[str, Any] = {}
    if shuffled is not None:
        found["randomized"] = randomised(spectrum, *shuffled)
    if wanted.detX:
        # The tail of 1 / lambda is at the other end: there is nothing to compare with.
        found["erg"] = erg_of(spectrum, 0 if wanted.inverse else fit.num_pl_spikes)
    if wanted.ranks:
        found["ranks"] = ranks_of(spectrum)
        if shape is not None:
            found["random_ranks"] = _random_ranks(shape, wanted)
    if wanted.deltas:
        # Spectra pooled from several matrices do not know of each other.
        alone = shape is not None and shape.slices == 1
        found["spacing_ratio"] = jnp.where(alone, spacings_of(spectrum).mean_ratio, jnp.nan)
    return found


def _random_ranks(shape: Shape, wanted: Wanted) -> Ranks:
    random = mean_ranks(shape.N, shape.M, shape.slices)
    # Beside the stable rank of 1 / lambda it would be that of another spectrum.
    known = ~jnp.asarray(wanted.inverse) & (shape.M >= LEAST_SIDE)
    return replace(random, stable_rank=jnp.where(known, random.stable_rank, jnp.nan))


FitSlices = Callable[[Slices, ESD, Float[Array, ""]], MPFit]


def bulks_of(
    spectrum: ESD,
    slices: Slices | None,
    shuffles: Shuffles | None,
    shape: Shape,
    method: MPMethod,
    fit_slices: FitSlices = fit_slices,
) -> dict[str, Any]:
    """The Marchenko-Pastur fits of the layer and of its shuffles, by their field in `Measures`."""
    found: dict[str, Any] = {}
    N, M = shape.N, shape.M
    by_kernel = method == "kde"  # WeightWatcher's, of all slices pooled
    if slices is not None:
        found["mp"] = (
            fit_bulk(spectrum, N, M, shape.slices, shape.spike, method)
            if by_kernel
            else fit_slices(slices, spectrum, shape.spike)
        )
    if shuffles is not None:
        copies = shape.slices * shape.replicas
        bulk = (
            fit_bulk(shuffles.every, N, M, copies, shape.trap, method)
            if by_kernel
            else fit_slices(whole(shuffles.each, N, M), shuffles.every, shape.trap)
        )
        found |= {"rand_mp": bulk, "num_traps": _for_each(bulk.num_spikes, shape.replicas)}
    return found


@jax.jit
def _for_each(number: Int[Array, ""], replicas: Int[Array, ""]) -> Int[Array, ""]:
    """How many each of the shuffles has, rounded; -1 stays."""
    return jnp.where(number < 0, -1, (number + replicas // 2) // replicas)


def vectors_of(
    localization: Localization, fit: PowerLawFit | TruncatedPowerLawFit, inverse: bool
) -> VectorMetrics:
    """The singular vectors of the bulk and of the tail that was fitted."""
    return bulk_and_tail(_turned(localization) if inverse else localization, fit.xmin)


@jax.jit
def _turned(localization: Localization) -> Localization:
    """The same vectors by 1 / lambda, in the order in which `inverted` has the eigenvalues."""
    own = localization.esd
    resolved = own.evals > own.floor
    inverse = jnp.where(resolved, 1.0 / jnp.where(resolved, own.evals, 1.0), 0.0)
    order = jnp.argsort(inverse)
    return Localization(
        esd=inverted(own),
        vec_entropy=localization.vec_entropy[order],
        loc_ratio=localization.loc_ratio[order],
        part_ratio=localization.part_ratio[order],
    )

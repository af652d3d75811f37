"""Columns that set a layer beside random matrices, and its other views."""

from __future__ import annotations

from wwfunc.columns.column import NATURE, Column, Type, column

_MP = "Marchenko, Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994"
_JOHNSTONE = "Johnstone 2001, doi:10.1214/aos/1009210544"
_SELF = "Martin, Mahoney 2021, arXiv:1810.01075"
_SETOL = "Martin, Hinrichs 2025, arXiv:2507.17912"
_ROY = "Roy, Vetterli 2007, EUSIPCO, 606-610"
_ATAS = "Atas et al. 2013, doi:10.1103/PhysRevLett.110.084101"

_SIDES = {"mp": ("", "its bulk"), "rand_mp": ("rand_", "the bulk of the shuffled weights")}

_BULK = tuple(
    own
    for field, (prefix, whose) in _SIDES.items()
    for own in (
        column(
            f"{prefix}sigma_mp",
            "float",
            f"measures.{field}.sigma_mp",
            f"Standard deviation of {whose}, where the mean eigenvalue of W is 1",
            "> 0",
            _MP,
        ),
        column(
            f"{prefix}sigma_noise",
            "float",
            f"measures.{field}.sigma",
            "Standard deviation of the elements of that noise, as W is; of several slices, each of "
            "which has its own, the root mean square (mp_method='kde' takes them together)",
            "> 0",
            _MP,
        ),
        column(
            f"{prefix}W_scale",
            "float",
            f"measures.{field}.W_scale",
            "Factor on W that makes the mean eigenvalue 1",
            "> 0",
        ),
        column(
            f"{prefix}bulk_min",
            "float",
            f"measures.{field}.bulk_min",
            f"Lower edge of {whose}; of several slices the lowest",
            ">= 0",
            _MP,
        ),
        column(
            f"{prefix}bulk_max",
            "float",
            f"measures.{field}.bulk_max",
            f"Upper edge of {whose}; of several slices the highest",
            "> 0",
            _MP,
        ),
        column(
            f"{prefix}mp_edge",
            "float",
            f"measures.{field}.edge",
            f"An eigenvalue above it is a spike beside {whose}: noise reaches it once in "
            f"{'a thousand' if prefix else 'a hundred'} times; of several slices the highest",
            "> 0",
            _JOHNSTONE,
        ),
        column(
            f"{prefix}num_spikes",
            "int",
            f"measures.{field}.num_spikes",
            f"Eigenvalues above what noise reaches: spikes beside {whose}; of several slices "
            "the sum",
            ">= 0",
            _JOHNSTONE,
        ),
        column(
            f"{prefix}mp_softrank",
            "float",
            f"measures.{field}.mp_softrank",
            f"Upper edge of {whose} over the largest eigenvalue",
            "> 0",
            _SELF,
        ),
    )
)

_SHUFFLED = (
    column(
        "num_traps",
        "int",
        "measures.num_traps",
        "Spikes of the shuffled weights, of all slices, for each shuffle (randomize=True): "
        "correlation traps, by WeightWatcher's count; `analyze_traps` tells those that single "
        "elements make",
        ">= 0",
        _SELF,
    ),
    column(
        "max_rand_eval",
        "float",
        "measures.randomized.max_rand_eval",
        "Largest eigenvalue of the shuffled weights",
        ">= 0",
        _SELF,
    ),
    column(
        "rand_distance",
        "float",
        "measures.randomized.rand_distance",
        "Jensen-Shannon distance of the spectrum to that of the shuffled weights",
        "0 to 0.833",
        NATURE,
    ),
    column(
        "ww_softrank",
        "float",
        "measures.randomized.ww_softrank",
        "Largest eigenvalue of the shuffled weights over that of the layer",
        "> 0",
        _SELF,
    ),
    column(
        "ww_maxdist",
        "float",
        "measures.randomized.ww_maxdist",
        "Largest eigenvalue of the layer less that of the shuffled weights",
    ),
)

_ERG = (
    column(
        "detX_num",
        "int",
        "measures.erg.detX_num",
        "Number of the largest eigenvalues whose product falls under 1, where their mean is 1 "
        "(detX=True)",
        "1 to num_evals",
        _SETOL,
    ),
    column(
        "num_ERG_spikes", "int", "measures.erg.detX_num", "The same as detX_num", reference=_SETOL
    ),
    column(
        "detX_val",
        "float",
        "measures.erg.detX_val",
        "The smallest of them, where the mean eigenvalue is 1",
        "> 0",
        _SETOL,
    ),
    column(
        "detX_val_unrescaled",
        "float",
        "measures.erg.detX_val_unrescaled",
        "The smallest of them",
        "> 0",
        _SETOL,
    ),
    column(
        "ERG_gap", "float", "measures.erg.ERG_gap", "detX_num less num_pl_spikes", reference=_SETOL
    ),
)

_WORDS = {
    "vec_entropy": "entropy of a histogram of the elements",
    "loc_ratio": "localisation ratio |v|_1 / |v|_inf",
    "part_ratio": "participation ratio |v|_2 / |v|_4",
}
_VECTORS = tuple(
    column(
        f"{side}_{moment}_{name}",
        "float",
        f"measures.vectors.{side}_{moment}_{name}",
        f"{'Mean' if moment == 'mean' else 'Variance'} over the {side}'s singular vectors of the "
        f"{words} (vectors=True)",
        ">= 0",
        _SELF,
    )
    for side in ("bulk", "tail")
    for name, words in _WORDS.items()
    for moment in ("mean", "var")
)

_RANDOM_VECTORS = tuple(
    column(
        f"random_{name}",
        "float",
        f"measures.random_vector.{name}",
        f"Mean over random directions of the {words}",
        ">= 0",
        "Porter, Thomas 1956, doi:10.1103/PhysRev.104.483",
    )
    for name, words in _WORDS.items()
)

_SOFT_RANKS: dict[str, tuple[Type, str, str]] = {
    "effective_rank": ("float", "exp of the entropy of the singular values' shares", _ROY),
    "energy_rank_95": ("int", "Fewest eigenvalues that hold 95 % of the norm", ""),
    "energy_rank_99": ("int", "Fewest eigenvalues that hold 99 % of the norm", ""),
    "participation_ratio": ("float", "(sum lambda)^2 / sum lambda^2", ""),
}
_RANKS = (
    column(
        "random_stable_rank",
        "float",
        "measures.random_ranks.stable_rank",
        "stable_rank of a Gaussian matrix of this shape, in the mean (ranks=True)",
        ">= 1",
        _JOHNSTONE,
    ),
    *(
        own
        for name, (kind, words, reference) in _SOFT_RANKS.items()
        for own in (
            column(
                name, kind, f"measures.ranks.{name}", f"{words} (ranks=True)", ">= 1", reference
            ),
            column(
                f"random_{name}",
                "float",
                f"measures.random_ranks.{name}",
                f"{name} of a Gaussian matrix of this shape, in the mean",
                ">= 1",
                _MP,
            ),
        )
    ),
)

COLUMNS: tuple[Column, ...] = (
    *_BULK,
    *_SHUFFLED,
    *_ERG,
    *_VECTORS,
    *_RANDOM_VECTORS,
    *_RANKS,
    column(
        "spacing_ratio",
        "float",
        "measures.spacing_ratio",
        "Mean ratio of consecutive gaps between eigenvalues: 0.53 where they repel each other as "
        "in a random matrix, 0.39 where they do not (deltas=True); missing for pooled slices, and "
        "where rounding makes the gaps",
        "0 to 1",
        _ATAS,
    ),
)

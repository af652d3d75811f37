"""Draw the pictures of docs/random-matrix.md from the library's own functions.

    python docs/draw_random_matrix.py [NAME ...]

Everything follows from fixed seeds and from examples/digits.safetensors; a minute or so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import wwfunc

FOLDER = Path(__file__).with_name("pictures")
DIGITS = Path(__file__).parents[1] / "examples" / "digits.safetensors"

INK, GREY, BLUE, RED, GREEN = "#222222", "#9a9a9a", "#1f5fa8", "#c0392b", "#2e7d32"
STYLE = {
    "svg.hashsalt": "wwfunc",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
EIGENVALUE = r"eigenvalue $\lambda$ of $W^T W$"


def panels(rows: int = 1, columns: int = 1, height: float = 3.4, **shared: bool) -> tuple:
    """A figure 7 inches wide and its axes, in one list."""
    figure = Figure(figsize=(7.0, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    return figure, list(axes)


def plain(axis: mpl.axis.Axis, ticks: list[float]) -> None:
    """Numbers instead of powers of ten on a logarithmic axis."""
    axis.set_ticks(ticks)
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def direction(rng: np.random.Generator, length: int) -> np.ndarray:
    """A unit vector, spread over all its elements."""
    vector = rng.standard_normal(length)
    return vector / np.linalg.norm(vector)


def evals_of(W: np.ndarray) -> np.ndarray:
    """Eigenvalues of W^T W."""
    return np.asarray(wwfunc.esd(W).evals)


# The pictures -----------------------------------------------------------------------------------


def marchenko_pastur() -> Figure:
    """The law over the eigenvalues of noise with three signals, two of which are visible."""
    n, m, sigma = 1000, 500, 0.02
    rng = np.random.default_rng(1)
    theta_c = sigma * (n * m) ** 0.25
    W = sigma * rng.standard_normal((n, m))
    for strength in (0.7, 1.6, 2.1):
        W += strength * theta_c * np.outer(direction(rng, n), direction(rng, m))
    evals = evals_of(W)
    fit = wwfunc.mp_fit(evals, n, m)
    figure, (axes,) = panels()
    axes.hist(evals, bins=80, range=(0, 2), density=True, color="#cddcec", label="eigenvalues")
    x = np.linspace(float(fit.bulk_min), float(fit.bulk_max), 400)
    law = f"the law, fitted: sigma = {float(fit.sigma):.4f}"
    axes.plot(x, wwfunc.mp_density(x, fit.sigma, n, m), color=BLUE, label=law, gid="law")
    for where in (fit.bulk_min, fit.bulk_max):
        label = "edges of the bulk" if where is fit.bulk_max else None
        axes.axvline(where, color=GREY, linestyle=":", label=label)
    axes.axvline(fit.edge, color=RED, linewidth=1, label="edge for spikes (99 %)", gid="edge")
    spikes = evals[evals > fit.edge]
    axes.plot(spikes, np.full(spikes.size, 0.08), "v", color=RED, label=f"{spikes.size} spikes")
    axes.set(xlabel=EIGENVALUE, ylabel="density", xlim=(0, 2.0))
    axes.legend(loc="upper right")
    return figure


def detection(draws: int = 300) -> Figure:
    """How often one signal in noise is found, over its strength."""
    strengths = (0.0, 0.4, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
    figure, (axes,) = panels()
    for (n, m), color in zip(((64, 64), (256, 64), (256, 256)), (GREY, GREEN, BLUE), strict=True):
        rng = np.random.default_rng([n, m])
        shares = []
        for strength in strengths:
            noise = rng.standard_normal((draws, n, m))
            noise[:, 0, 0] += strength * (n * m) ** 0.25  # which direction is all the same
            evals = np.linalg.eigvalsh(noise.swapaxes(1, 2) @ noise)
            fits = (wwfunc.mp_fit(row, n, m) for row in evals)
            shares.append(100 * np.mean([int(fit.num_spikes) > 0 for fit in fits]))
        axes.plot(strengths, shares, "o-", markersize=4, color=color, label=f"{n} x {m}")
    axes.axvline(1, color=INK, linestyle=":", linewidth=1)
    axes.text(0.99, 60, r"$\theta_c$", ha="right")
    axes.set(
        xlabel=r"strength of the signal $\theta$ / $\theta_c$",
        ylabel=f"spikes found, % of {draws} matrices",
    )
    axes.legend(loc="upper left", title="shape of W")
    return figure


def traps() -> Figure:
    """Spectra of a matrix with a signal and a trap: as it is, shuffled, sharpened, and both."""
    n, m = 500, 300
    rng = np.random.default_rng(3)
    theta_c = (n * m) ** 0.25
    W = rng.standard_normal((n, m))
    W += 2.0 * theta_c * np.outer(direction(rng, n), direction(rng, m))
    W[17, 42] = 3.0 * theta_c
    clean = wwfunc.sharpen(W)
    shown = {
        "W: a signal and\none large element": W,
        "W shuffled:\nthe element stays": wwfunc.shuffled(jax.random.key(0), W),
        "sharpened:\nthe signal stays": clean,
        "sharpened, then\nshuffled: noise": wwfunc.shuffled(jax.random.key(0), clean),
    }
    figure, rows = panels(4, 1, 5.2, sharex=True)
    for axes, (words, matrix) in zip(rows, shown.items(), strict=True):
        evals = evals_of(matrix)
        fit = wwfunc.mp_fit(evals, n, m, quantile=0.999)
        axes.hist(evals, bins=np.arange(0, 4700, 50), color="#cddcec")
        axes.axvline(fit.edge, color=RED, linewidth=1, label="edge for traps (99.9 %)")
        spikes = evals[evals > fit.edge]
        axes.plot(spikes, np.full(spikes.size, 4.0), "v", color=RED, label="spikes")
        axes.text(0.6, 0.95, words, transform=axes.transAxes, ha="center", va="top")
        axes.set(ylabel="eigenvalues", xlim=(0, 4700))
    rows[-1].set_xlabel(EIGENVALUE)
    figure.legend(*rows[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def trace_log() -> Figure:
    """Three cuts of one spectrum, and the sum of logarithms that makes one of them."""
    record = wwfunc.analyze(DIGITS, layers="dense2", mp_fit=True, detX=True).records[0]
    evals = record.measures.esd.evals[::-1]
    rank = np.arange(1, evals.size + 1)
    sums = np.cumsum(np.log(evals / evals.mean()))
    figure, (above, below) = panels(2, 1, 4.8, sharex=True)
    above.plot(rank, evals, ".", markersize=3, color=INK)
    cuts = {
        "Marchenko-Pastur spikes": (record.num_spikes, RED, "--"),
        "power law's tail": (record.num_pl_spikes, BLUE, "-."),
        "trace-log condition": (record.detX_num, GREEN, "-"),
    }
    for axes in (above, below):
        for label, (count, color, line) in cuts.items():
            words = f"{label}: {count}"
            axes.axvline(count + 0.5, color=color, linestyle=line, linewidth=1, label=words)
    above.set(yscale="log", ylabel=EIGENVALUE)
    plain(above.yaxis, [0.01, 0.1, 1])
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    below.axhline(0, color=GREY, linewidth=0.8)
    below.plot(rank, sums, color=INK)
    below.set(
        xlabel="eigenvalues, from the largest on",
        ylabel=r"sum of $\ln(\lambda_{(j)} / \bar\lambda)$",
    )
    return figure


def vectors() -> Figure:
    """Localisation of singular vectors over their eigenvalues."""
    n, m = 500, 300
    rng = np.random.default_rng(6)
    theta_c = (n * m) ** 0.25
    W = rng.standard_normal((n, m))
    W += 2.0 * theta_c * np.outer(direction(rng, n), direction(rng, m))
    W += 7.0 * theta_c * np.outer(direction(rng, n), np.full(m, m**-0.5))
    W[17, 42] = 2.5 * theta_c
    found = wwfunc.vector_metrics(W)
    expected = float(wwfunc.random_vector(m).loc_ratio)
    edge = wwfunc.mp_fit(found.esd, n, m).edge
    figure, (axes,) = panels()
    axes.plot(found.esd.evals, found.loc_ratio, ".", markersize=4, color=INK)
    axes.axhline(expected, color=BLUE, linewidth=1, label=f"random vector: {expected:.2f}")
    axes.axvline(edge, color=RED, linewidth=1, label="edge for spikes (99 %)")
    above = np.flatnonzero(found.esd.evals > edge)
    words = {
        "signal of random direction": (6, -12),
        "one large element": (6, 3),
        "signal spread evenly": (-120, -3),
    }
    for index, (text, offset) in zip(above, words.items(), strict=True):
        point = found.esd.evals[index], found.loc_ratio[index]
        axes.annotate(text, point, offset, textcoords="offset points", color=RED)
    axes.set(xlabel=EIGENVALUE, ylabel=r"$\Vert v \Vert_1 / \Vert v \Vert_\infty$")
    axes.set(xscale="log", ylim=(0, 230), xlim=(20, 30000))
    plain(axes.xaxis, [30, 100, 300, 1000, 3000, 10000, 30000])
    axes.legend(loc="upper left")
    return figure


def ranks() -> Figure:
    """Ranks of the layers of a small network beside those of random matrices."""
    records = wwfunc.analyze(DIGITS, ranks=True).records
    names = [f"{record.longname}, {record.N} x {record.M}" for record in records]
    figure, (axes,) = panels(height=3.6)
    shown = {"stable_rank": "o", "effective_rank": "s", "energy_rank_95": "^"}
    place = np.arange(len(records))
    for (name, marker), color in zip(shown.items(), (RED, BLUE, GREEN), strict=True):
        beside = [getattr(row, name) / getattr(row, f"random_{name}") for row in records]
        axes.plot(100 * np.array(beside), place, marker, color=color, alpha=0.8, label=name)
    axes.axvline(100, color=INK, linestyle=":", linewidth=1)
    axes.hlines(place, 0, 108, color=GREY, linewidth=0.4, zorder=0)
    axes.set(xlabel="rank of the layer, % of the mean of random matrices of its shape")
    axes.set(xlim=(0, 108), yticks=place, yticklabels=names)
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def spacings() -> Figure:
    """Ratios of neighbouring gaps, of one matrix and of nine pooled ones."""
    rng = np.random.default_rng(7)
    alone = [evals_of(rng.standard_normal((300, 200))) for _ in range(40)]
    pooled = [evals_of(rng.standard_normal((9, 60, 40))) for _ in range(25)]
    r = np.linspace(0, 1, 200)
    # The densities of Atas et al.: of 3 x 3 matrices of the orthogonal ensemble, and of no levels.
    laws = (
        27 / 4 * (r + r**2) / (1 + r + r**2) ** 2.5,
        2 / (1 + r) ** 2,
    )
    figure, columns = panels(1, 2, 3.1, sharey=True)
    titles = ("one matrix: levels repel", "nine slices pooled: they do not")
    for axes, spectra, law, title in zip(columns, (alone, pooled), laws, titles, strict=True):
        ratios = np.concatenate([wwfunc.spacings(evals).ratio for evals in spectra])
        ratios = ratios[np.isfinite(ratios)]
        measured = f"measured: mean {ratios.mean():.3f}"
        axes.hist(ratios, bins=25, range=(0, 1), density=True, color="#cddcec", label=measured)
        axes.plot(r, law, color=BLUE, label=f"density: mean {np.trapezoid(r * law, r):.3f}")
        axes.set(xlabel="ratio r of neighbouring gaps", title=title, xlim=(0, 1), ylim=(0, 2.6))
        axes.title.set_fontsize(9)
        axes.legend(loc="upper right")
    columns[0].set_ylabel("density")
    return figure


def convolution() -> Figure:
    """A convolution's operator on a grid beside its slices."""
    kernel = wwfunc.load(DIGITS)["conv3.kernel"].read().astype(np.float64)
    operator = wwfunc.conv_esd(kernel, 32).evals
    slices = evals_of(kernel.reshape(-1, *kernel.shape[-2:]))
    figure, (axes,) = panels()
    for evals, words, color in (
        (operator, "the operator on a grid of 32 x 32 (conv2d_fft)", BLUE),
        (slices, "the nine slices of the kernel, pooled", RED),
    ):
        share = 100 * (np.arange(evals.size) + 0.5) / evals.size
        label = f"{words}: {evals.size:,} values"
        axes.plot(share, np.sqrt(evals), color=color, label=label)
    axes.set(yscale="log", xlabel="share of the singular values that are smaller, %")
    axes.set(ylabel=r"singular value $\sigma$", xlim=(0, 100), ylim=(0.02, 12))
    plain(axes.yaxis, [0.03, 0.1, 0.3, 1, 3, 10])
    axes.legend(loc="upper left")
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    drawing.__name__.replace("_", "-"): drawing
    for drawing in (
        marchenko_pastur,
        detection,
        traps,
        trace_log,
        vectors,
        ranks,
        spacings,
        convolution,
    )
}


def draw(name: str, folder: Path = FOLDER, suffix: str = ".svg") -> Path:
    """Draw one picture into a folder; on one machine it is the same bytes each time."""
    path = folder / f"{name}{suffix}"
    with mpl.rc_context(STYLE):
        metadata = {"Date": None, "Creator": None} if suffix == ".svg" else None
        PICTURES[name]().savefig(path, metadata=metadata, dpi=110)
    return path


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or PICTURES:
        sys.stdout.write(f"{draw(chosen)}\n")

"""Train a family of networks and ask whether their weights alone tell which are the better ones.

Twenty-four multilayer perceptrons of one family learn scikit-learn's 8x8 handwritten digits: one to
three hidden layers, 64 or 192 units wide, with and without weight decay, on all of the training
images or on every eighth. Each is tested on the same images. `wwfunc.compare` then puts means over
layers beside the accuracies. What comes out is written as it is. Everything follows from
one seed; a minute or so on two cores:

    python examples/series.py [--output docs/series.md] [--picture docs/series.svg]
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import wwfunc
from wwfunc.comparison.manymodels import Comparison

SEED = 0
STEPS = 3000
BATCH = 64
LEARNING_RATE = 0.05
MOMENTUM = 0.9
METRICS = ("alpha", "alpha_weighted", "log_alpha_norm", "log_norm", "log_spectral_norm")

Params = list[tuple[jax.Array, jax.Array]]


class Member(NamedTuple):
    """What one network of the family is."""

    depth: int
    width: int
    decay: float
    share: int
    """It learns from one in so many images."""

    def __str__(self) -> str:
        images = "all" if self.share == 1 else f"1/{self.share}"
        return f"{self.depth} x {self.width}, decay {self.decay:g}, {images}"


GRID = itertools.product((1, 2, 3), (64, 192), (0.0, 3e-3), (1, 8))
FAMILY = [Member(*chosen) for chosen in GRID]


def load_split() -> list[np.ndarray]:
    """Return training images, test images, training labels and test labels, pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16.0).astype(np.float32)
    return train_test_split(pixels, labels, test_size=0.5, stratify=labels, random_state=SEED)


def initial(key: jax.Array, widths: list[int]) -> Params:
    """Draw Gaussian weights, as large as ReLUs need them."""
    keys = jax.random.split(key, len(widths) - 1)
    sides = zip(keys, widths[:-1], widths[1:], strict=True)
    return [
        (jax.random.normal(key, (n, m)) * jnp.sqrt(2.0 / n), jnp.zeros(m)) for key, n, m in sides
    ]


def logits(params: Params, x: jax.Array) -> jax.Array:
    """Return one row of ten numbers per image."""
    for W, b in params[:-1]:
        x = jax.nn.relu(x @ W + b)
    W, b = params[-1]
    return x @ W + b


def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return -jnp.mean(jax.nn.log_softmax(logits(params, x))[jnp.arange(len(y)), y])


@jax.jit
def train(params: Params, decay: float, images: jax.Array, labels: jax.Array) -> Params:
    """Descend by stochastic gradients with momentum, to a rate of zero."""

    def step(state: tuple[Params, Params], inputs: tuple[jax.Array, jax.Array]) -> tuple:
        (params, speed), (key, rate) = state, inputs
        batch = jax.random.randint(key, (BATCH,), 0, len(labels))
        slope = jax.grad(loss)(params, images[batch], labels[batch])
        slope = jax.tree.map(lambda g, w: g + decay * w, slope, params)
        speed = jax.tree.map(lambda v, g: MOMENTUM * v - rate * g, speed, slope)
        return (jax.tree.map(jnp.add, params, speed), speed), None

    rates = LEARNING_RATE * (1 + jnp.cos(jnp.pi * jnp.arange(STEPS) / STEPS)) / 2
    start = params, jax.tree.map(jnp.zeros_like, params)
    keys = jax.random.split(jax.random.key(SEED), STEPS)
    (params, _), _ = jax.lax.scan(step, start, (keys, rates))
    return params


def accuracy(params: Params, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images classified correctly."""
    return float(np.mean(np.argmax(logits(params, images), axis=-1) == labels))


def trained(member: Member, split: list[np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Return the weights of one network by name, and its accuracy on the test images."""
    images, test_images, labels, test_labels = split
    part = slice(None, None, member.share)
    widths = [64, *[member.width] * member.depth, 10]
    params = initial(jax.random.key(SEED + 1), widths)
    params = train(params, member.decay, images[part], labels[part])
    names = [*(f"hidden{number}" for number in range(member.depth)), "head"]
    weights = {f"{n}.kernel": np.asarray(W) for n, (W, _) in zip(names, params, strict=True)}
    return weights, accuracy(params, test_images, test_labels)


def family(members: list[Member]) -> Comparison:
    """Train each member and compare them with their accuracies as the truth."""
    split = load_split()
    models, truth = {}, {}
    for member in members:
        models[str(member)], truth[str(member)] = trained(member, split)
    return wwfunc.compare(models, truth=truth)


def chosen(found: Comparison, members: list[Member], share: int | None) -> Comparison:
    """The members that learnt from one in `share` images; None takes all."""
    rows = zip(members, found.rows, strict=True)
    return Comparison(rows=tuple(row for member, row in rows if share in (None, member.share)))


def page(found: Comparison, members: list[Member]) -> str:
    """The results as a page of the documentation."""
    groups = {"all": None, "all images": 1, "an eighth of the images": 8}
    lines = [summary(found, members), ""]
    lines += ["| networks | metric | Kendall's tau | 95 % interval | p | p for all metrics |"]
    lines += ["|---|---|---|---|---|---|"]
    for words, share in groups.items():
        group = chosen(found, members, share)
        table = group.correlation_table.set_index("metric")
        for metric in METRICS:
            one = table.loc[metric]
            lines.append(
                f"| {words} ({one.n:.0f}) | `{metric}` | {one.tau:+.2f} | {one.low:+.2f} to "
                f"{one.high:+.2f} | {one.p:.2g} | {one.p_holm:.2g} |"
            )
    lines += ["", f"| network | test accuracy | {' | '.join(METRICS)} |"]
    lines += ["|---|---|" + "---|" * len(METRICS)]
    for row in sorted(found.rows, key=lambda row: -row.truth):
        numbers = " | ".join(f"{row.summary[metric]:.2f}" for metric in METRICS)
        lines.append(f"| {row.label} | {row.truth:.1%} | {numbers} |")
    return "\n".join(lines) + "\n"


def summary(found: Comparison, members: list[Member]) -> str:
    """What came out, in a paragraph."""
    tables = [chosen(found, members, share).correlation_table for share in (None, 1, 8)]
    rows = pd.concat(tables).query("metric in @METRICS")
    clear = rows[rows.p_holm < 0.05]
    one, adjusted = rows.iloc[rows.p.argmin()], rows.p_holm.iloc[rows.p.argmin()]
    all_of_them, eighth = (
        np.mean([row.truth for row in chosen(found, members, share)]) for share in (1, 8)
    )
    return (
        f"Of {len(rows)} correlations {len(clear) or 'none'} stand out from chance, once their\n"
        f"number is taken into account. The clearest is that of `{one.metric}`: tau\n"
        f"{one.tau:+.2f}, p {one.p:.2g}, and {adjusted:.2g} for all metrics. The networks that\n"
        f"saw every eighth image read {eighth:.1%} of the others right, those that saw all\n"
        f"{all_of_them:.1%}."
    )


def draw(found: Comparison, members: list[Member], path: Path) -> None:
    """Each metric against the accuracy, a mark for each network."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = ("alpha", "alpha_weighted", "log_alpha_norm", "log_norm")
    style = {"svg.hashsalt": "wwfunc", "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style | {"font.size": 9, "figure.facecolor": "white"}):
        figure = Figure(figsize=(7.0, 5.4), layout="constrained")
        axes = figure.subplots(2, 2, sharey=True)
        for metric, ax in zip(shown, axes.ravel(), strict=True):
            for member, row in zip(members, found.rows, strict=True):
                colour = "#1f5fa8" if member.share == 1 else "#d1782a"
                ax.plot(
                    row.summary[metric],
                    100 * row.truth,
                    marker="os^"[member.depth - 1],
                    color=colour,
                    fillstyle="full" if member.decay else "none",
                    markersize=4 if member.width == 64 else 7,
                    linestyle="",
                )
            ax.set_xlabel(metric)
        for ax in axes[:, 0]:
            ax.set_ylabel("test accuracy, %")
        marks = [
            ("all images", {"color": "#1f5fa8", "marker": "o"}),
            ("an eighth", {"color": "#d1782a", "marker": "o"}),
            *[(f"{n} hidden", {"color": "#666666", "marker": "os^"[n - 1]}) for n in (1, 2, 3)],
            ("no decay", {"color": "#666666", "marker": "o", "fillstyle": "none"}),
            ("64 wide", {"color": "#666666", "marker": "o", "markersize": 4}),
        ]
        handles = [mpl.lines.Line2D([], [], linestyle="", label=w, **mark) for w, mark in marks]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Train, compare, print or write the page, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="page whose tables are replaced")
    parser.add_argument("--picture", type=Path, help="SVG to draw")
    asked = parser.parse_args()
    found = family(FAMILY)
    tables = page(found, FAMILY)
    if asked.output:
        head = asked.output.read_text().partition("<!-- written by examples/series.py -->")
        asked.output.write_text(head[0] + head[1] + "\n\n" + tables)
    else:
        print(tables, end="")
    if asked.picture:
        draw(found, FAMILY, asked.picture)


if __name__ == "__main__":
    main()

"""Plant a correlation trap in a trained network, remove it, and look at the accuracy each time.

A network of three dense layers learns scikit-learn's 8x8 handwritten digits from three quarters of
the images and is tested on the rest. Then a few weights of its middle layer are set to several
times what noise of its size could hide, which makes spikes in the spectrum of the shuffled layer,
and `remove_traps` sets the elements that cause them to zero. The removed weights stay lost: what
stood there before is not known. Everything follows from one seed. Prints a Markdown table, in about
ten seconds:

    python examples/planted_trap.py [--elements 30] [--strength 6] [--seed 0]
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import wwfunc
from wwfunc.randommatrix.traps import analyze_traps
from wwfunc.transforms.sharpening import remove_traps

WIDTHS = (64, 256, 256, 10)
LAYER = 1
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-3
HEADER = """\
| stage | test accuracy | test loss | alpha | num_traps |
|---|---|---|---|---|"""

Params = list[tuple[jax.Array, jax.Array]]
Images = tuple[np.ndarray, np.ndarray]


def load_split(seed: int) -> tuple[Images, Images]:
    """Return images with pixels in [0, 1] and labels, to train with and to test with."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16.0).astype(np.float32)
    parts = train_test_split(pixels, labels, test_size=0.25, stratify=labels, random_state=seed)
    return (parts[0], parts[2]), (parts[1], parts[3])


def initial(key: jax.Array) -> Params:
    """Draw Gaussian weights, as large as ReLUs need them."""
    keys = jax.random.split(key, len(WIDTHS) - 1)
    sides = zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True)
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
def step(params: Params, speed: Params, x: jax.Array, y: jax.Array) -> tuple[Params, Params]:
    """Descend along the gradient, with momentum and weight decay."""
    slope = jax.tree.map(lambda g, w: g + WEIGHT_DECAY * w, jax.grad(loss)(params, x, y), params)
    speed = jax.tree.map(lambda v, g: MOMENTUM * v - LEARNING_RATE * g, speed, slope)
    return jax.tree.map(jnp.add, params, speed), speed


def train(images: Images, seed: int) -> Params:
    """Return the weights after all epochs."""
    pixels, labels = images
    rng = np.random.default_rng(seed)
    params = initial(jax.random.key(seed))
    speed = jax.tree.map(jnp.zeros_like, params)
    for _ in range(EPOCHS):
        order = rng.permutation(len(labels))
        # An incomplete batch would have another shape, and a second compilation.
        for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            params, speed = step(params, speed, pixels[batch], labels[batch])
    return params


def planted(W: np.ndarray, elements: int, strength: float, seed: int) -> np.ndarray:
    """Set some elements to so many theta_c, the threshold from which they make a spike."""
    rng = np.random.default_rng(seed)
    theta_c = analyze_traps(jax.random.key(seed), W).theta_c[0]
    new = W.copy()
    new.flat[rng.choice(W.size, elements, replace=False)] = strength * theta_c
    return new


def row(stage: str, params: Params, W: np.ndarray, images: Images, seed: int) -> str:
    """Describe the network with `W` as its middle layer."""
    changed = [(W, b) if number == LAYER else (w, b) for number, (w, b) in enumerate(params)]
    pixels, labels = images
    accuracy = np.mean(np.argmax(logits(changed, pixels), axis=-1) == labels)
    alpha = wwfunc.fit_pl(wwfunc.esd(W)).alpha
    num_traps = analyze_traps(jax.random.key(seed + 1), W).num_traps
    cells = stage, f"{accuracy:.1%}", f"{loss(changed, pixels, labels):.2f}", f"{alpha:.2f}"
    return f"| {' | '.join(cells)} | {num_traps} |"


def main() -> None:
    """Train, plant, sharpen; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=30, help="how many weights to set")
    parser.add_argument("--strength", type=float, default=6.0, help="to how many theta_c")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    train_images, test_images = load_split(chosen.seed)
    params = train(train_images, chosen.seed)
    W = np.asarray(params[LAYER][0])
    trapped = planted(W, chosen.elements, chosen.strength, chosen.seed)
    sharpened = remove_traps(jax.random.key(chosen.seed), trapped)
    print(HEADER)
    for stage, weights in (
        ("as trained", W),
        (f"with {chosen.elements} planted elements", trapped),
        (f"sharpened, {len(sharpened.removed)} elements removed", sharpened.W),
    ):
        print(row(stage, params, weights, test_images, chosen.seed))


if __name__ == "__main__":
    main()

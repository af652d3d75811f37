"""Train the small network that ``make demo`` analyses, and save its weights.

A Flax network of four convolutions and five dense layers learns scikit-learn's 8x8 handwritten
digits from three quarters of the images and is tested on the rest. The split, the initial weights
and the batches all follow from one seed. The file holds ``conv1.kernel`` (height, width, in, out),
``dense1.kernel`` (in, out) and so on. To run it, which takes about a minute on two cores:

    python examples/train_demo.py [OUT.safetensors]
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 0
EPOCHS = 200
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1
DEFAULT_OUT = Path(__file__).with_name("digits.safetensors")

Params = dict[str, dict[str, jax.Array]]


class DigitNet(nn.Module):
    """Classify 8x8 grey images into the ten digits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return one row of ten logits per image."""
        x = nn.relu(nn.Conv(32, (3, 3), name="conv1")(x))
        x = nn.relu(nn.Conv(48, (3, 3), name="conv2")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(64, (3, 3), name="conv3")(x))
        x = nn.relu(nn.Conv(64, (3, 3), name="conv4")(x))
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate((192, 160, 128, 96), start=1):
            x = nn.relu(nn.Dense(width, name=f"dense{i}")(x))
        return nn.Dense(10, name="head")(x)


def load_split() -> list[np.ndarray]:
    """Return train images, test images, train labels and test labels, pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=SEED)


def shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Move each image by at most one pixel along each axis, filling with background."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = jnp.pad(jax.random.randint(key, (len(images), 2), 0, 3), ((0, 0), (0, 1)))
    crop = partial(jax.lax.dynamic_slice, slice_sizes=images.shape[1:])
    return jax.vmap(crop)(padded, corners)


def train(images: np.ndarray, labels: np.ndarray) -> Params:
    """Fit a network with AdamW under a warm-up and cosine schedule."""
    model = DigitNet()
    steps = len(images) // BATCH
    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, 2 * steps, EPOCHS * steps)
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    init_key, data_key = jax.random.split(jax.random.key(SEED))
    params = model.init(init_key, images[:1])["params"]
    state = optimizer.init(params)

    def loss(params: Params, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, shift(key, x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params: Params, state: optax.OptState, *batch: jax.Array) -> tuple:
        updates, state = optimizer.update(jax.grad(loss)(params, *batch), state, params)
        return optax.apply_updates(params, updates), state

    for epoch_key in jax.random.split(data_key, EPOCHS):
        order_key, *shift_keys = jax.random.split(epoch_key, steps + 1)
        # An incomplete batch would have another shape, and a second compilation.
        order = np.asarray(jax.random.permutation(order_key, len(images)))[: steps * BATCH]
        for key, batch in zip(shift_keys, order.reshape(steps, BATCH), strict=True):
            params, state = step(params, state, key, images[batch], labels[batch])
    return params


def accuracy(params: Params, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images classified correctly."""
    logits = DigitNet().apply({"params": params}, images)
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def main() -> None:
    """Train, report the accuracy and save the weights."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_OUT
    train_images, test_images, train_labels, test_labels = load_split()
    params = train(train_images, train_labels)
    on_train = f"{accuracy(params, train_images, train_labels):.4f}"
    on_test = f"{accuracy(params, test_images, test_labels):.4f}"
    print(f"train accuracy {on_train}, test accuracy {on_test}")

    weights = {name: np.asarray(w) for name, w in flatten_dict(params, sep=".").items()}
    metadata = {"format": "flax", "dataset": "scikit-learn digits", "seed": str(SEED)}
    metadata |= {"train_accuracy": on_train, "test_accuracy": on_test}
    save_file(weights, out, metadata=metadata)
    print(f"saved {len(weights)} arrays to {out}")


if __name__ == "__main__":
    main()

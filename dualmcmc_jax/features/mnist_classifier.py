"""A small convolutional classifier of MNIST's digits, and the program that trains the weights.

    python -m dualmcmc_jax.features.mnist_classifier --data=mnist-labels.npz --out=FILE.safetensors

The .npz file has the arrays `train` and `test`, uint8 images [N, 28, 28, 1], and their classes `train_labels` and
`test_labels`, integers [N]. docs/evaluation.md says how to make it. Training takes some minutes on a GPU.

The weights that ship with the program classify 99.43% of the 10,000 test images correctly. Distances between its
features are not the FID, whose features are those of Inception.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from dualmcmc_jax.data.batches import to_float

NUM_FEATURES = 64
"""Number of penultimate features."""
SHAPE = (28, 28, 1)
"""Shape of an image."""
WEIGHTS = Path(__file__).with_suffix(".safetensors")
"""The file of the weights."""
_LARGEST_SHIFT = 2
"""Largest random shift of a training image along each axis, in pixels."""


class Classifier(nn.Module):
    """x [B, 28, 28, 1] in [-1, 1] -> features [B, 64] and logits [B, 10]."""

    @nn.compact
    def __call__(self, x):
        for i, (width, stride) in enumerate(((32, 1), (32, 2), (64, 1), (64, 2), (NUM_FEATURES, 1))):
            x = nn.relu(nn.Conv(width, (3, 3), strides=stride, name=f"conv{i}")(x))
        features = x.mean((1, 2))
        return features, nn.Dense(10, name="out")(features)


def load(path: Path) -> dict:
    """Read parameters from a safetensors file."""
    return unflatten_dict(load_file(path), sep="/")


def train(images: np.ndarray, labels: np.ndarray, *, num_epochs: int = 12, batch_size: int = 200, seed: int = 0):
    """Train a classifier with Adam on randomly shifted images, and return its parameters.

    Args:
      images: [N, 28, 28, 1], uint8.
      labels: [N], classes from 0 to 9.
      num_epochs: number of passes through the images.
      batch_size: images per update. The rest of each pass is left out.
      seed: random seed of the initial parameters, the order and the shifts.
    """
    num_batches = len(images) // batch_size
    optimizer = optax.adam(optax.cosine_onecycle_schedule(num_epochs * num_batches, 4e-3))
    params = Classifier().init(jax.random.key(seed), jnp.zeros((1, *SHAPE)))["params"]
    state = optimizer.init(params)

    def loss(params, x, y):
        _, logits = Classifier().apply({"params": params}, to_float(x, jnp.float32))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def update(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    random, height, width = np.random.RandomState(seed), *SHAPE[:2]
    margin = (_LARGEST_SHIFT, _LARGEST_SHIFT)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
    for _ in tqdm(range(num_epochs), desc="training", unit="epoch"):
        order = random.permutation(len(images))[: num_batches * batch_size]
        for index in order.reshape(num_batches, batch_size):
            top, left = random.randint(2 * _LARGEST_SHIFT + 1, size=2)
            x = padded[index, top : top + height, left : left + width]
            params, state = update(params, state, x, labels[index])
    return params


def accuracy(params: dict, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of uint8 images [N, 28, 28, 1] that are classified correctly."""
    classify = jax.jit(lambda x: Classifier().apply({"params": params}, to_float(x, jnp.float32))[1].argmax(1))
    parts = [classify(images[i : i + 1000]) for i in range(0, len(images), 1000)]
    return float(np.mean(np.concatenate(parts) == labels))


def main() -> None:
    """Train a classifier, print its accuracy on the test images, and write its weights to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the .npz file of images and labels")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--epochs", type=int, default=12, help="number of passes through the images (default: 12)")
    flags = parser.parse_args()
    with np.load(flags.data) as data:
        params = train(data["train"], data["train_labels"], num_epochs=flags.epochs)
        share = accuracy(params, data["test"], data["test_labels"])
        print(f"accuracy on {len(data['test_labels']):,} test images: {share:.2%}")
    save_file({k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}, flags.out)


if __name__ == "__main__":
    main()

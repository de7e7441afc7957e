"""The port of Inception, compared with torch-fidelity's network. Both have the same random, calibrated weights."""

import importlib.util
import shutil

import flax.linen as nn
import inception_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pth
import pytest

from dualmcmc_jax.features import inception

pytestmark = pytest.mark.slow


def run(weights, images):
    params = inception.convert(weights)
    return jax.device_get(jax.jit(inception.Inception().apply)({"params": params}, images))


@pytest.fixture(scope="module")
def reference():
    return inception_oracle.reference()


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("size", inception_oracle.SIZES)
def test_outputs_equal_stored_reference(size, reference):
    """The reference has every sixteenth feature and logit of torch-fidelity 0.4.0 for these images and weights."""
    weights, numbers = reference
    features, logits = run(weights, inception_oracle.images(size))
    assert features.dtype == logits.dtype == np.float32
    assert relative_error(features[:, ::16], numbers[f"features_{size}"]) < 1e-4
    assert relative_error(logits[:, ::16], numbers[f"logits_{size}"]) < 1e-4
    first, second = numbers[f"features_{size}"]
    assert relative_error(first, second) > 0.2  # the features depend on the input


@pytest.mark.skipif(not importlib.util.find_spec("torch_fidelity"), reason="needs torch and torch-fidelity")
@pytest.mark.parametrize("size", inception_oracle.SIZES)
def test_outputs_equal_those_of_torch_fidelity(size, reference):
    weights, _ = reference
    images = inception_oracle.images(size)
    expected = inception_oracle.outputs(inception_oracle.network(weights), images)
    for actual, numbers in zip(run(weights, images), expected[:2], strict=True):
        assert relative_error(actual, numbers) < 1e-4


def with_half_pixels(x, size=299):
    return jax.image.resize(x, (len(x), size, size, x.shape[-1]), "linear", antialias=False)


MISTAKES = {
    "the default epsilon of batch normalization": ("BATCH_NORM_EPSILON", 1e-5),
    "average pools that count padding": ("average_pool", lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME")),
    "an average pool in the last block": ("last_pool", inception.average_pool),
    "a resize with half-pixel centers": ("resize", with_half_pixels),
    "pixels scaled by 255 to [0, 1]": ("scale", lambda x: x / 255),
    "images in [-1, 1] instead of uint8": ("resize", lambda x: inception_resize(x / 127.5 - 1)),
}
inception_resize = inception.resize


QUICK = ("an average pool in the last block", "a resize with half-pixel centers")
MARKED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.more) for name in MISTAKES]


@pytest.mark.parametrize("mistake", MARKED)
def test_each_known_mistake_changes_the_features(mistake, reference, monkeypatch):
    weights, numbers = reference
    monkeypatch.setattr(inception, *MISTAKES[mistake])
    features, _ = run(weights, inception_oracle.images(32))
    assert relative_error(features[:, ::16], numbers["features_32"]) > 0.05


def test_bias_would_change_the_logits(reference):
    weights, numbers = reference
    _, logits = run(weights, inception_oracle.images(32))
    assert relative_error(logits[:, ::16] + weights["fc.bias"][::16], numbers["logits_32"]) > 0.1


def test_resize_equals_that_of_tensorflow_1():
    """Output pixel i reads input position i n / size.

    For a resize from 2 to 4 pixels, the positions are 0, 1/2, 1 and 3/2. The position 3/2 reads the last pixel.
    """
    x = jnp.array([[0.0, 10.0], [20.0, 30.0]])[None, ..., None]
    rows = [[0, 5, 10, 10], [10, 15, 20, 20], [20, 25, 30, 30], [20, 25, 30, 30]]
    np.testing.assert_allclose(inception.resize(x, 4)[0, ..., 0], rows)
    np.testing.assert_array_equal(inception.resize(x, 2), x)


def test_weights_are_checked_and_cached(reference, tmp_path, monkeypatch):
    """The SHA-256 and the shapes of the arrays are checked. Converted weights are read from a cache the next time."""
    weights, _ = reference
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights.pth"
    refuse = lambda match: pytest.raises(ValueError, match=match)
    with refuse(
        "^inception_weights: found no file .*weights.pth, expected the file weights-inception-.*.pth of https:"
    ):
        inception.load(path)
    pth.save(path, weights)
    with refuse(r"^inception_weights: found .*weights.pth with sha256 \w{8}..., expected the file weights-inception"):
        inception.load(path)
    monkeypatch.setattr(inception, "SHA256", "")
    loaded = inception.load(path)
    jax.tree.map(np.testing.assert_array_equal, loaded, inception.convert(weights))
    monkeypatch.setattr(inception, "convert", None)
    jax.tree.map(np.testing.assert_array_equal, inception.load(path), loaded)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "cache")

    missing = dict(weights)
    del missing["Mixed_5b.branch1x1.bn.running_var"]
    with refuse(r"found no array named Mixed_5b.branch1x1.bn.running_var, expected an array of shape \(64,\)"):
        inception.convert(missing)
    with refuse(r"found an array of shape \(2048, 1008\) named fc.weight, expected an array of shape \(1008, 2048\)"):
        inception.convert(weights | {"fc.weight": weights["fc.weight"].T})

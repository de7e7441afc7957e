"""Batches of examples, and data sets."""

import os
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sklearn.datasets import load_digits

from dualmcmc_jax.data import batches, cache, sources, toy2d


def test_each_epoch_visits_an_example_at_most_once():
    indices = [batches.batch_indices(3, step, num_examples=10, batch_size=3) for step in range(6)]
    for epoch in (indices[:3], indices[3:]):
        seen = np.concatenate(epoch)
        assert len(set(seen.tolist())) == 9
    assert not np.array_equal(indices[0], indices[3])


def test_batches_are_the_same_in_every_version():
    """These numbers must never change, because a run may be resumed with another version of the program."""
    np.testing.assert_array_equal(batches.batch_indices(0, 0, num_examples=1500, batch_size=5), FIRST)
    np.testing.assert_array_equal(batches.batch_indices(1, 301, num_examples=1500, batch_size=5), LATER)


FIRST = [101, 480, 829, 279, 713]
LATER = [809, 912, 1031, 760, 1131]


def test_flips_are_fair_and_the_same_in_every_version():
    np.testing.assert_array_equal(batches.flips(0, 3, batch_size=8), FLIPS)
    all_flips = np.concatenate([batches.flips(5, step, batch_size=100) for step in range(100)])
    assert abs(all_flips.mean() - 0.5) < 0.02


FLIPS = [True, False, True, False, True, False, True, True]


def test_prefetch_keeps_the_order():
    made = []
    stream = batches.prefetch(lambda step: made.append(step) or step, range(3, 9))
    assert next(stream) == 3
    assert list(stream) == [4, 5, 6, 7, 8]
    assert made == list(range(3, 9))
    assert list(batches.prefetch(made.append, range(0))) == []


def test_prefetch_raises_the_errors_of_its_function():
    with pytest.raises(ZeroDivisionError):
        list(batches.prefetch(lambda step: 1 / step, range(3)))


def test_pixels_are_equal_after_a_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    x = batches.to_float(jnp.asarray(pixels), jnp.float32)
    assert x.min() == -1
    assert x.max() == 1
    np.testing.assert_array_equal(batches.to_uint8(np.asarray(x)), pixels)
    np.testing.assert_array_equal(batches.to_uint8(np.array([-7.0, 7.0])), [0, 255])


def test_digits_are_complete_and_labeled():
    digits = sources.load(tiny.config().data)
    assert digits.train.shape == (1500, 8, 8, 1)
    assert digits.test.shape == (297, 8, 8, 1)
    assert digits.train.dtype == np.uint8
    assert (digits.train.min(), digits.train.max()) == (0, 255)
    assert digits.name == "digits"
    assert digits.value_range == (-1.0, 1.0)
    assert digits.density is None
    all_images = np.concatenate([digits.train, digits.test]).reshape(1797, -1)
    assert len(np.unique(all_images, axis=0)) == 1797
    images, labels = load_digits(return_X_y=True)
    by_image = {tuple(image): label for image, label in zip(np.round(images * (255 / 16)), labels, strict=True)}
    assert [by_image[tuple(image)] for image in all_images] == [*digits.train_labels, *digits.test_labels]


def test_toy_data_set_has_its_density_and_range():
    data = tiny.config(data__source="toy2d:rings", data__shape=(2,)).data
    rings = sources.load(data)
    assert rings.value_range == (-4.0, 4.0)
    assert rings.train_labels is None
    assert np.abs(rings.train).max() < rings.density.half_width == 4.0
    np.testing.assert_allclose(
        rings.density.log_density(np.zeros((1, 2))), toy2d.density("rings").log_density(np.zeros(2))
    )
    assert sources.num_train(data) == len(rings.train) == 100_000
    assert sources.num_train(tiny.config().data) == 1500
    assert sources.num_train(tiny.config(data__source="npz:x.npz").data) is None


@pytest.mark.parametrize(
    "source", ["digits:", "digits:x", "toy2d", "toy2d:", "toy2d:circle", "images", "npz:", "mnist"]
)
def test_unknown_sources_are_refused(source):
    """The message lists all sources."""
    with pytest.raises(
        ValueError, match=r"'digits', 'toy2d:NAME' \(8gaussians, .*\), 'images:PATH', 'npz:PATH' or 'tfds:N"
    ):
        sources.load(tiny.config(data__source=source).data)


@pytest.mark.parametrize("size", [0, 100, 300])
def test_damaged_arrays_in_the_cache_are_computed_again(size, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make = lambda: {"mean": np.arange(30.0), "axes": np.eye(3)}
    before = cache.arrays("features", {"of": 1}, make)
    (path,) = tmp_path.rglob("*.npz")
    assert path.stat().st_size > size
    os.truncate(path, size)
    after = cache.arrays("features", {"of": 1}, make)
    assert f"{path}: found a damaged file" in caplog.text
    for name, array in make().items():
        np.testing.assert_array_equal(before[name], array)
        np.testing.assert_array_equal(after[name], array)
    cache.arrays("features", {"of": 1}, make=None)  # the new file is read


@pytest.mark.parametrize("size", [0, 100, 300, None])
def test_damaged_images_in_the_cache_are_decoded_again(size, tmp_path, monkeypatch, caplog):
    """With size None, a file of the entry is missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    readers = {"a": lambda: image, "b": lambda: image + 1}
    decode = lambda: cache.decoded({"of": 1}, readers, readers, shape=(8, 8, 3), skip_bad=False)
    decode()
    (path,) = tmp_path.rglob("test.npy")
    path.unlink() if size is None else os.truncate(path, size)
    train, test = decode()
    assert f"{path.parent}: found damaged images" in caplog.text
    np.testing.assert_array_equal(train, test)
    np.testing.assert_array_equal(test, [image, image + 1])
    assert cache.find({"of": 1}) is not None


def test_images_in_the_cache_that_have_changed_are_decoded_again(tmp_path, monkeypatch, caplog):
    """An entry of an older version has no checksums, and is used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = np.arange(1, 193, dtype=np.uint8).reshape(8, 8, 3)
    readers = {"a": lambda: image, "b": lambda: image + 1}
    decode = lambda: cache.decoded({"of": 1}, readers, readers, shape=(8, 8, 3), skip_bad=False)
    decode()
    (path,) = tmp_path.rglob("train.npy")
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(bytes(50))
    train, _ = decode()
    np.testing.assert_array_equal(train, [image, image + 1])
    assert [message.partition(" (")[0] for message in caplog.messages] == [f"{path.parent}: found damaged images"]
    (path.parent / "checksums.json").unlink()
    assert cache.find({"of": 1}) is not None


def test_shares_of_processes_form_the_batch():
    """Two processes with two devices each get the same batch as one process with four devices."""
    train = np.arange(40 * 4 * 4).reshape(40, 4, 4, 1)
    share = partial(batches.share, 7, train=train, seed=3, batch_size=8)
    one = share(flip=True, process_index=0, process_count=1, local_device_count=4)
    two = [share(flip=True, process_index=i, process_count=2, local_device_count=2) for i in (0, 1)]
    assert one.x.shape == (4, 2, 4, 4, 1)
    np.testing.assert_array_equal(np.concatenate([part.x for part in two]), one.x)
    np.testing.assert_array_equal(np.concatenate([part.example for part in two]), one.example)
    mirrored = batches.flips(3, 7, batch_size=8)
    assert 0 < mirrored.sum() < 8
    for x, example, flipped in zip(one.x.reshape(8, 4, 4, 1), one.example.ravel(), mirrored, strict=True):
        np.testing.assert_array_equal(x, train[example][:, ::-1] if flipped else train[example])

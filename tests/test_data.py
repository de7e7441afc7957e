"""Batches and data sets."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.data import batches, sources


def test_an_epoch_visits_every_example_once():
    indices = [batches.batch_indices(3, step, num_examples=10, batch_size=3) for step in range(6)]
    for epoch in (indices[:3], indices[3:]):
        seen = np.concatenate(epoch)
        assert len(set(seen.tolist())) == 9
    assert not np.array_equal(indices[0], indices[3])


def test_batches_are_frozen():
    """These numbers must never change, or resuming under another version would change a run."""
    np.testing.assert_array_equal(batches.batch_indices(0, 0, num_examples=1500, batch_size=5), FIRST)
    np.testing.assert_array_equal(batches.batch_indices(1, 301, num_examples=1500, batch_size=5), LATER)


FIRST = [101, 480, 829, 279, 713]
LATER = [809, 912, 1031, 760, 1131]


def test_flips_are_frozen_and_fair():
    np.testing.assert_array_equal(batches.flips(0, 3, batch_size=8), FLIPS)
    every = np.concatenate([batches.flips(5, step, batch_size=100) for step in range(100)])
    assert abs(every.mean() - 0.5) < 0.02


FLIPS = [True, False, True, False, True, False, True, True]


def test_prefetch_keeps_the_order_and_works_ahead():
    made = []
    stream = batches.prefetch(lambda step: made.append(step) or step, range(3, 9))
    assert next(stream) == 3
    assert list(stream) == [4, 5, 6, 7, 8]
    assert made == list(range(3, 9))
    assert list(batches.prefetch(made.append, range(0))) == []


def test_prefetch_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(batches.prefetch(lambda step: 1 / step, range(3)))


def test_pixels_survive_the_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    x = batches.to_float(jnp.asarray(pixels), jnp.float32)
    assert x.min() == -1
    assert x.max() == 1
    np.testing.assert_array_equal(batches.to_uint8(np.asarray(x)), pixels)
    np.testing.assert_array_equal(batches.to_uint8(np.array([-7.0, 7.0])), [0, 255])


def test_digits():
    digits = sources.load(tiny.config().data)
    assert digits.train.shape == (1500, 8, 8, 1)
    assert digits.test.shape == (297, 8, 8, 1)
    assert digits.train.dtype == np.uint8
    assert (digits.train.min(), digits.train.max()) == (0, 255)
    everything = np.concatenate(digits).reshape(1797, -1)
    assert len(np.unique(everything, axis=0)) == 1797

"""Parallelism: streams of examples through all devices, updates, and placement of arrays."""

import jax
import numpy as np
import pytest

from dualmcmc_jax.runtime import parallel


class Bar:
    """A replacement of tqdm that counts the finished examples."""

    def __init__(self, *, total, **_):
        self.total, self.done = total, 0
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, num):
        self.done += num


@pytest.mark.parametrize("num", [0, 1, 16, 37, 48])  # a call has two examples for each of eight devices
def test_stream_keeps_the_order_and_finishes_its_progress_bar(num, monkeypatch):
    monkeypatch.setattr(parallel, "tqdm", Bar)
    run = parallel.stream(lambda a, index, x: {"index": index, "y": a * x}, 2, desc="")
    x = np.arange(float(num))
    seen = []
    for part in run(3.0, num, x):
        seen.append(part)
        assert Bar.last.done == sum(len(part["index"]) for part in seen)
    assert Bar.last.done == Bar.last.total == num
    if num:
        results = parallel.collect(iter(seen))
        np.testing.assert_array_equal(results["index"], np.arange(num))
        np.testing.assert_array_equal(results["y"], 3 * x)


def test_update_keeps_the_placement_of_the_state():
    """The second call therefore compiles nothing. The mean over devices equals the mean of the batch."""

    def step(state, batch):
        mean = jax.lax.pmean(batch.mean(), parallel.AXIS)
        return state + mean, {"mean": mean}

    update = parallel.compile_update(step)
    state = parallel.replicate(np.zeros(()))
    x = np.arange(24.0).reshape(8, 3)
    for times in (1, 2, 3):
        before = state.sharding
        state, metrics = update(state, x)
        assert state.sharding == before
        assert float(state) == pytest.approx(11.5 * times)
    assert float(metrics["mean"]) == pytest.approx(11.5)


def test_split_gives_each_device_one_row():
    x = np.arange(24.0).reshape(8, 3)
    shards = parallel.split(x).addressable_shards
    assert len(shards) == len(parallel.available()) == 8
    for shard in shards:
        np.testing.assert_array_equal(shard.data, x[shard.index])
        assert shard.data.shape == (1, 3)
    twice = parallel.per_device(lambda a, parts: a * parts[0] + parts[1])(2.0, (x, x))
    np.testing.assert_array_equal(twice, 3 * x)

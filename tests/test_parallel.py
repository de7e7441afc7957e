"""Streams of many examples through all devices: results in order, and a progress bar that reaches its end."""

import jax
import numpy as np
import pytest

from dualmcmc_jax.runtime import parallel


class Bar:
    """Stands in for tqdm, and counts."""

    def __init__(self, *, total, **_):
        self.total, self.done = total, 0
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, num):
        self.done += num


@pytest.mark.parametrize("num", [0, 1, 16, 37, 48])  # of calls of two examples on each of eight devices
def test_stream(num, monkeypatch):
    monkeypatch.setattr(parallel, "tqdm", Bar)
    run = parallel.stream(lambda a, index, x: {"index": index, "y": a * x}, 2, desc="")
    x = np.arange(float(num))
    seen = []
    for part in run(3.0, num, x):
        seen.append(part)
        assert Bar.last.done == sum(len(part["index"]) for part in seen)
    assert Bar.last.done == Bar.last.total == num
    if num:
        found = parallel.collect(iter(seen))
        np.testing.assert_array_equal(found["index"], np.arange(num))
        np.testing.assert_array_equal(found["y"], 3 * x)


def test_an_update_leaves_its_state_where_it_was():
    """So that the second call compiles nothing, and the mean over devices is that of the batch."""

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


def test_split_gives_each_device_its_row():
    x = np.arange(24.0).reshape(8, 3)
    shards = parallel.split(x).addressable_shards
    assert len(shards) == len(parallel.available()) == 8
    for shard in shards:
        np.testing.assert_array_equal(shard.data, x[shard.index])
        assert shard.data.shape == (1, 3)
    twice = parallel.per_device(lambda a, parts: a * parts[0] + parts[1])(2.0, (x, x))
    np.testing.assert_array_equal(twice, 3 * x)

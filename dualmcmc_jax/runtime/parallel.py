"""Many examples through all devices of this process, in calls of one size.

That size alone decides which examples share a call, so that neither the number of devices nor of examples changes what
a generator with batch statistics makes of them.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm


def available() -> list[jax.Device]:
    """The devices of this process."""
    return jax.local_devices()


def everywhere(tree: Any) -> Any:
    """The same arrays on every device of this process."""
    return jax.device_put(tree, NamedSharding(Mesh(available(), ("device",)), PartitionSpec()))


def stream(function: Callable[..., Any], size: int, *, desc: str) -> Callable[..., Iterator[Any]]:
    """run(constants, num, *arrays): yields what function makes of num examples, in order, as host arrays [B, ...].

    While the host uses one part, the devices work on the next.

    Args:
      function: function(constants, index [size], *parts [size, ...]) -> a tree of [size, ...], on one device. Beyond
        the last example it gets further indices, and the arrays from their first row again; what it makes of those is
        dropped.
      size: examples per call.
      desc: what the progress bar says; it appears after two seconds.
    """
    call = _compiled(function, tuple(available()))
    count = len(available()) * size

    def fetch(out, length):
        return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:])[:length], out)

    def run(constants: Any, num: int, *arrays: np.ndarray) -> Iterator[Any]:
        constants, under_way = everywhere(constants), None
        with tqdm(total=num, unit="example", desc=desc, delay=2, leave=False) as bar:
            for start in range(0, num, count):
                index = np.arange(start, start + count).reshape(-1, size)  # [devices, size]
                out = call(constants, (index, *(array[index % num] for array in arrays)))
                if under_way:
                    yield fetch(*under_way)
                    bar.update(count)
                under_way = out, min(count, num - start)
            if under_way:
                yield fetch(*under_way)

    return run


def collect(parts: Iterator[Any]) -> Any:
    """All that a stream yields, put together."""
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable[..., Any], devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Return the compiled function. The same function on the same devices is compiled once for all of its streams."""
    return jax.pmap(lambda constants, parts: function(constants, *parts), in_axes=(None, 0), devices=devices)

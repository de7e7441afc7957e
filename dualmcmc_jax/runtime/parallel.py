"""Data parallelism: the only place of the package that calls pmap, or says on which devices an array is.

A train step runs on all devices of all processes. Everything else runs on the devices of this process.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

AXIS = "batch"
"""Name of the axis over which devices average their gradients."""


def compile_update(function: Callable[..., Any], devices: list[jax.Device] | None = None) -> Callable[..., Any]:
    """Compile an update of a state for all devices.

    Args:
      function: function(state, batch) -> (state, metrics) on one device. The outputs must be the same on every device.
      devices: default: all devices of all processes.

    Returns:
      update(state, batch): the state is the same on every device, and its buffers are reused; the arrays of the batch
      are [devices of this process, B, ...].
    """
    # Inputs and outputs that are the same everywhere need no copy per device and no unreplicate.
    return jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0, devices=devices)


def per_device(function: Callable[..., Any], devices: list[jax.Device] | None = None) -> Callable[..., Any]:
    """Compile function(constants, parts) for all devices, each of which gets its row of parts.

    Args:
      function: (constants, parts) -> a tree, on one device.
      devices: default: all devices of all processes.

    Returns:
      call(constants, parts): the arrays of parts and of the result are [devices of this process, ...].
    """
    return jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def available() -> list[jax.Device]:
    """Return the devices of this process."""
    return jax.local_devices()


def replicate(tree: Any) -> Any:
    """Copy the arrays of a tree to every device of this process, where an update also leaves its state.

    A state that is elsewhere at first would be compiled for a second time.
    """
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def split(tree: Any) -> Any:
    """Give each device of this process its row of arrays [devices, ...]."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def stream(function: Callable[..., Any], size: int, *, desc: str) -> Callable[..., Iterator[Any]]:
    """Compile a function of many examples, which are streamed through all devices in calls of one size.

    The size alone decides which examples share a call. So neither the number of devices nor of examples changes what a
    generator with batch statistics makes of an example. While the host uses one part, the devices work on the next.

    Args:
      function: function(constants, index [size], *parts [size, ...]) -> a tree of [size, ...], on one device. Beyond
        the last example the index goes on and the arrays start again at their first row; results of these are dropped.
      size: examples per call.
      desc: text of the progress bar, which appears after two seconds.

    Returns:
      run(constants, num, *arrays): yields the results of num examples, in order, as host arrays [B, ...].
    """
    call = _streamed(function, tuple(available()))
    count = len(available()) * size

    def fetch(out, length):
        return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:])[:length], out)

    def run(constants: Any, num: int, *arrays: np.ndarray) -> Iterator[Any]:
        constants, under_way = replicate(constants), None
        with tqdm(total=num, unit="example", desc=desc, delay=2, leave=False) as bar:
            for start in range(0, num, count):
                index = np.arange(start, start + count).reshape(-1, size)  # [devices, size]
                out = call(constants, (index, *(array[index % num] for array in arrays)))
                if under_way:
                    part = fetch(*under_way)
                    bar.update(under_way[1])
                    yield part
                under_way = out, min(count, num - start)
            if under_way:
                part = fetch(*under_way)
                bar.update(under_way[1])
                yield part

    return run


def collect(parts: Iterator[Any]) -> Any:
    """Concatenate the parts that a stream yields."""
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


@functools.lru_cache(maxsize=64)
def _streamed(function: Callable[..., Any], devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Compile a function of a stream, once for all streams of the same function through the same devices."""
    return per_device(lambda constants, parts: function(constants, *parts), devices=list(devices))


def _mesh() -> Mesh:
    return Mesh(available(), (AXIS,))

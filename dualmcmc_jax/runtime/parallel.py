"""Data parallelism. Only this module calls pmap and places arrays on devices.

An update runs on all devices of all processes. Everything else runs on the devices of this process.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

AXIS = "batch"
"""Name of the axis of pmap over which gradients are averaged."""


def compile_update(function: Callable[..., Any], devices: list[jax.Device] | None = None) -> Callable[..., Any]:
    """Compile an update of the train state for all devices.

    Args:
      function: (state, batch) -> (state, metrics), on one device. The outputs must be equal on all devices.
      devices: the devices to use; None: all devices of all processes.

    Returns:
      update(state, batch) -> (state, metrics). The state is equal on all devices, and its buffers are donated. The
      arrays of the batch are [devices of this process, B, ...].
    """
    # With in_axes=None and out_axes=None, the state needs neither replicate before an update nor unreplicate after it.
    return jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0, devices=devices)


def per_device(function: Callable[..., Any], devices: list[jax.Device] | None = None) -> Callable[..., Any]:
    """Compile a function that each device calls with the same constants and with its own row of `parts`.

    Args:
      function: (constants, parts) -> a tree, on one device.
      devices: the devices to use; None: all devices of all processes.

    Returns:
      call(constants, parts) -> a tree. The arrays of `parts` and of the result are [devices of this process, ...].
    """
    return jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def available() -> list[jax.Device]:
    """Return the devices of this process."""
    return jax.local_devices()


def replicate(tree: Any) -> Any:
    """Copy the arrays of a tree to every device of this process.

    An update leaves its state with this placement. A first state with another placement would trigger a second
    compilation.
    """
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def split(tree: Any) -> Any:
    """Place row i of each array [devices, ...] on device i of this process."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def stream(function: Callable[..., Any], size: int, *, desc: str) -> Callable[..., Iterator[Any]]:
    """Compile a function of many examples and stream the examples through all devices in calls of a fixed size.

    Which examples share a call depends only on the size. A generator with batch statistics therefore gives the same
    results for any number of devices and examples. The devices compute one part while the host uses the part before.

    Args:
      function: (constants, index [size], *parts [size, ...]) -> a tree of arrays [size, ...], on one device. The last
        call is padded. In the padding, the index exceeds num - 1 and the parts repeat rows from the beginning. The
        results of the padding are dropped.
      size: number of examples per device and call.
      desc: text of the progress bar, which appears after two seconds.

    Returns:
      run(constants, num, *arrays), a generator that yields the results of num examples in order, as host arrays
      [B, ...].
    """
    call = _streamed(function, tuple(available()))
    count = len(available()) * size

    def fetch(out, length):
        return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:])[:length], out)

    def run(constants: Any, num: int, *arrays: np.ndarray) -> Iterator[Any]:
        constants, pending = replicate(constants), None
        with tqdm(total=num, unit="example", desc=desc, delay=2, leave=False) as bar:
            for start in range(0, num, count):
                index = np.arange(start, start + count).reshape(-1, size)  # [devices, size]
                out = call(constants, (index, *(array[index % num] for array in arrays)))
                if pending:
                    part = fetch(*pending)
                    bar.update(pending[1])
                    yield part
                pending = out, min(count, num - start)
            if pending:
                part = fetch(*pending)
                bar.update(pending[1])
                yield part

    return run


def collect(parts: Iterator[Any]) -> Any:
    """Return the concatenation of the parts that a stream yields."""
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


@functools.lru_cache(maxsize=64)
def _streamed(function: Callable[..., Any], devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """Compile the function of a stream. The result is cached per function and devices."""
    return per_device(lambda constants, parts: function(constants, *parts), devices=list(devices))


def _mesh() -> Mesh:
    return Mesh(available(), (AXIS,))

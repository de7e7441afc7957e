"""TensorBoard events, written by the package tensorboard alone.

TensorBoard's own `EventFileWriter` imports TensorFlow if it is installed, which takes seconds and much memory.
"""

import io
import os
import socket
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

with warnings.catch_warnings(action="ignore"):  # with `python -W error`, a warning would stop the import
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
    from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util import tensor_util


class EventWriter:
    """A writer of one file of events.

    Args:
      folder: the folder of the file. It is created if it does not exist.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write {name: number}."""
        metadata = scalar_metadata(display_name=None, description=None)
        self._write_tensors(step, {name: np.float32(value) for name, value in values.items()}, metadata)

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Write {name: uint8 [H, W, 3]}."""
        tensors = {}
        for name, image in images.items():
            height, width, _ = image.shape
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            tensors[name] = np.array([b"%d" % width, b"%d" % height, png.getvalue()], object)
        self._write_tensors(step, tensors, image_metadata(display_name=None, description=None))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_tensors(self, step: int, tensors: dict[str, np.ndarray], metadata) -> None:
        protos = {name: tensor_util.make_tensor_proto(tensor) for name, tensor in tensors.items()}
        values = [Summary.Value(tag=name, metadata=metadata, tensor=proto) for name, proto in protos.items()]
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **fields) -> None:
        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

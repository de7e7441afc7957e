"""Image data sets of TensorFlow Datasets, read without tensorflow."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from dualmcmc_jax.data.images import first_line


def open_splits(name: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """The train and the test (or else validation) split of a data set, prepared on first use.

    It is prepared as array_record, the one format that is read without tensorflow; preparing takes tensorflow and the
    network, once.

    Raises:
      ValueError: there is no such data set, it holds no images, it cannot be prepared, or its copy has another format.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(f"data.source: found 'tfds:{name}', expected tensorflow-datasets: {error}") from error

    problem = lambda what: ValueError(f"data.source: found 'tfds:{name}', {what}")
    try:
        builder = tfds.builder(name, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise problem("expected the name of a data set of TensorFlow Datasets") from error
    except ValueError as error:
        if "File format is already set" in str(error):
            folder = tfds.builder(name).data_dir
            raise problem(
                f"whose copy in {folder} is not in array_record format, expected that: convert it with "
                "`tfds convert_format`, delete it, or name another folder by TFDS_DATA_DIR"
            ) from error
        raise problem(f"expected the name of a data set of TensorFlow Datasets: {first_line(error)}") from error
    if "image" not in builder.info.features:
        raise problem("which has no feature 'image', expected one that has")
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise problem(f"which is not prepared yet; expected tensorflow, which that takes: {error}") from error
    except (OSError, tfds.download.DownloadError) as error:
        raise problem(f"which cannot be prepared; expected a network and space: {first_line(error)}") from error

    def open_first(*splits: str) -> Sequence[Any]:
        for split in splits:
            with contextlib.suppress(KeyError, ValueError):
                return builder.as_data_source(split)
        raise problem(f"with splits {sorted(builder.info.splits)}, expected {' or '.join(map(repr, splits))}")

    return open_first("train"), open_first("test", "validation")

"""Image data sets of TensorFlow Datasets. Reading does not need tensorflow; preparing a data set needs it once."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from dualmcmc_jax.data.images import first_line


def open_splits(name: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the training split and the test split of a data set. Without a test split, return the validation split.

    The data set is downloaded and prepared on first use, which needs tensorflow and internet access. It is stored as
    array_record, the only format that can be read without tensorflow.

    Raises:
      ValueError: the data set does not exist, has no images or cannot be prepared, or a local copy has another format.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"data.source: found 'tfds:{name}', expected the package tensorflow-datasets: {error}"
        ) from error

    problem = lambda text: ValueError(f"data.source: found 'tfds:{name}', {text}")
    try:
        builder = tfds.builder(name, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise problem("expected the name of a data set of TensorFlow Datasets") from error
    except ValueError as error:
        if "File format is already set" in str(error):
            folder = tfds.builder(name).data_dir
            raise problem(
                f"whose copy in {folder} has another format, expected array_record: convert the copy with "
                "`tfds convert_format`, delete it, or set TFDS_DATA_DIR to another folder"
            ) from error
        raise problem(f"expected the name of a data set of TensorFlow Datasets: {first_line(error)}") from error
    if "image" not in builder.info.features:
        raise problem("which has no feature 'image', expected an image data set")
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise problem(f"which is not prepared yet; expected tensorflow to prepare it: {error}") from error
    except (OSError, tfds.download.DownloadError) as error:
        raise problem(
            f"which cannot be prepared; expected internet access and disk space: {first_line(error)}"
        ) from error

    def open_first(*splits: str) -> Sequence[Any]:
        for split in splits:
            with contextlib.suppress(KeyError, ValueError):
                return builder.as_data_source(split)
        raise problem(f"which has the splits {sorted(builder.info.splits)}, expected {' or '.join(map(repr, splits))}")

    return open_first("train"), open_first("test", "validation")

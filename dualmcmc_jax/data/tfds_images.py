"""Image data sets of TensorFlow Datasets. Reading does not need tensorflow; preparing a data set needs it once."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from dualmcmc_jax.data.images import first_line

INSTALL = "`pip install 'dualmcmc_jax[tfds]'`"
"""The command that installs the extra "tfds" where this package is installed, also in an editable way."""


def open_splits(name: str) -> tuple[Sequence[Any], Sequence[Any] | None]:
    """Return the training split of a data set, and the test split, or else the validation split, or else None.

    The data set is downloaded and prepared on first use, which needs tensorflow and internet access. It is stored as
    array_record, the only format that can be read without tensorflow.

    Raises:
      ValueError: the data set does not exist, has no images or cannot be prepared, or a local copy has another format.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    problem = lambda text: ValueError(f"data.source: found 'tfds:{name}', {text}")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise problem(f"expected TensorFlow Datasets, which {INSTALL} installs: {first_line(error)}") from error

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
        raise problem(
            f"which is not prepared yet, expected the packages that prepare it; {INSTALL} installs TensorFlow: "
            f"{first_line(error)}"
        ) from error
    except AssertionError as error:
        raise problem(f"which must be downloaded by hand: {first_line(error)}") from error
    except (OSError, tfds.download.DownloadError) as error:
        raise problem(
            f"which cannot be prepared; expected internet access and disk space: {first_line(error)}"
        ) from error

    def open_first(*splits: str) -> Sequence[Any] | None:
        for split in splits:
            with contextlib.suppress(KeyError, ValueError):
                return builder.as_data_source(split)
        return None

    train = open_first("train")
    if train is None:
        raise problem(f"which has the splits {sorted(builder.info.splits)}, expected 'train'")
    return train, open_first("test", "validation")

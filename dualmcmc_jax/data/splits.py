"""Which images of a folder or zip file are held out? Those of a folder such as test/, or every tenth image."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TRAIN, TEST = ("train", "training"), ("test", "testing")
VALIDATION = ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "held-out", "held_out")


class Split(NamedTuple):
    """Names of images, divided into training images and held-out images.

    Attributes:
      train: names of the training images.
      test: names of the held-out images.
      how: a phrase that says how the images were divided.
    """

    train: list[str]
    test: list[str]
    how: str


def split(names: Sequence[str]) -> Split:
    """Divide images by the folders that contain them. Without such folders, hold out every tenth image.

    The folders are looked for in the innermost folder that contains all images. Letter case does not matter. Validation
    images are held out if there are no test images. If two splits exist, images outside of them are not used.

    Args:
      names: names of two or more images, with "/" between folders.

    Raises:
      ValueError: folders have the names of splits, but do not form one training split and one held-out split.
    """
    folders = {name: name.split("/")[:-1] for name in names}
    is_common = lambda level: len(set(level)) == 1
    depth = len([*itertools.takewhile(is_common, zip(*folders.values(), strict=False))])
    top = {name: (*parts, "")[depth] for name, parts in folders.items()}
    tops = sorted(set(top.values()))
    named = lambda kind: [folder for folder in tops if folder.lower() in kind]
    train, test = named(TRAIN), named(TEST) or named(VALIDATION)
    if len(train) == len(test) == 1:
        divided = [[name for name in names if top[name] == folder] for folder in (*train, *test)]
        others = len(names) - sum(map(len, divided))
        return Split(
            *divided, f"{train[0]}/ and {test[0]}/" + (f"; {others:,} other images not used" if others else "")
        )
    inside = {part.lower() for parts in folders.values() for part in parts[depth:]}
    if train or test or (inside & {*TRAIN} and inside & {*TEST, *VALIDATION}):
        kinds = {*TRAIN, *TEST, *VALIDATION}
        places = sorted(
            {"/".join(p[: i + 1]) for p in folders.values() for i in range(depth, len(p)) if p[i].lower() in kinds}
        )
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        raise ValueError(
            f"folders named like splits ({', '.join(f'{place}/' for place in places[:3])}{more}), "
            "expected one train/ and one test/ beside each other, or folders with other names"
        )
    held_out = every_tenth(len(names))
    divided = [[name for name, out in zip(names, held_out, strict=True) if out == kind] for kind in (False, True)]
    return Split(*divided, "every tenth held out")


def every_tenth(num: int) -> np.ndarray:
    """Return which examples to hold out, [num] bool: every tenth, or the last one if there are fewer than ten."""
    index = np.arange(num)
    return index % 10 == 9 if num >= 10 else index == num - 1

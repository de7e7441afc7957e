"""Image files to uint8 arrays: what a viewer would show, cropped and resized."""

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

Crop = tuple[int, int, int, int]


def list_files(path: Path) -> dict[str, Callable[[], bytes]]:
    """{name: function that reads it} of the images in a folder tree or a zip file, sorted by name.

    Hidden files, and those macOS adds to zip files, are passed over.

    Raises:
      ValueError: there is no such folder or zip file.
    """
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file.read_bytes for file in path.rglob("*") if file.is_file()}
    elif path.is_file() and zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        files = {name: lambda name=name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    else:
        found = "a file that is no zip" if path.is_file() else "nothing"
        raise ValueError(f"data.source: found {found} at {path}, expected a folder or zip file of images")
    hidden = lambda name: any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return {name: files[name] for name in sorted(files) if name.lower().endswith(SUFFIXES) and not hidden(name)}


def stamp(path: Path, name: str) -> tuple[int, int]:
    """Size in bytes and time of change of a listed file: what tells whether it is still the one decoded before."""
    status = (path / name if path.is_dir() else path).stat()
    return status.st_size, status.st_mtime_ns


def decode(data: bytes, shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """One image file as uint8 [H, W, C].

    The first frame, turned as its EXIF says, transparency over white, 16 bits scaled to 8; then `fit`.

    Args:
      data: the file's bytes.
      shape: (size, size, 1 for gray or 3 for colour).
      crop: (left, top, right, bottom) in pixels, or ().

    Raises:
      ValueError: it cannot be decoded whole, or crop does not lie inside it.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            image = _to_mode(ImageOps.exif_transpose(file), "L" if shape[2] == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError("no image" if what.startswith("cannot identify") else what) from error
    return fit(image, shape, crop)


def from_array(x: np.ndarray, shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """A decoded image, [H, W, 1 or 3] uint8, or uint16 to be scaled, as `decode` would give it."""
    if x.dtype == np.uint16:
        x = np.round(x / 257).astype(np.uint8)
    return fit(
        _to_mode(Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x), "L" if shape[2] == 1 else "RGB"), shape, crop
    )


def fit(image: Image.Image, shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """An 8-bit image as uint8 [H, W, C]: `crop`, the largest centred square, a bilinear resize with antialiasing."""
    if crop:
        if crop[2] > image.width or crop[3] > image.height:
            raise ValueError(f"data.crop is {tuple(crop)}, the image {image.width} x {image.height} pixels")
        image = image.crop(tuple(crop))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != shape[0]:
        image = image.resize(shape[:2], Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(shape)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(np.round(np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)

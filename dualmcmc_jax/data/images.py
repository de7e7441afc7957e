"""Image files to uint8 arrays: what a viewer would show, cropped and resized."""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES, MAX_PIXELS = 256_000_000, Image.MAX_IMAGE_PIXELS  # 89 million, beyond which Pillow warns
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # whatever the file's name; Pillow hands others to other programs
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

Crop = tuple[int, int, int, int]


def list_files(path: Path) -> dict[str, Callable[[], bytes]]:
    """{name: function that reads it} of the images in a folder tree or a zip file, sorted by name.

    Hidden files, and those macOS adds to zip files, are passed over.

    Raises:
      ValueError: there is no such folder or zip file.
    """
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): partial(_read, file) for file in path.rglob("*") if file.is_file()}
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except Exception as error:  # as below
            raise ValueError(f"data.source: found {path}, a damaged zip file: {error}; expected a whole one") from error
        files = {
            info.filename: partial(_read_zipped, archive, info) for info in archive.infolist() if not info.is_dir()
        }
    else:
        found = "a file that is no zip" if path.is_file() else "nothing"
        raise ValueError(f"data.source: found {found} at {path}, expected a folder or zip file of images")
    hidden = lambda name: any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return {name: files[name] for name in sorted(files) if name.lower().endswith(SUFFIXES) and not hidden(name)}


def _read(file: Path) -> bytes:
    _check_size(file.stat().st_size)
    return file.read_bytes()


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Never inflates more than one byte beyond the size that the entry claims."""
    _check_size(info.file_size)
    try:
        check_compression(info)
        with archive.open(info) as file:
            return file.read(info.file_size + 1)
    except Exception as error:  # encrypted, overlapping, unknown methods, wrong sums: each has an error of its own
        raise ValueError(first_line(error).replace(repr(info), info.filename)) from error


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{num_bytes / 1e6:.0f} MB, expected at most {MAX_BYTES / 1e6:.0f}")


def check_compression(info: zipfile.ZipInfo) -> None:
    """Raises ValueError for a zip file's entry of a kind that Python would inflate whole, whatever its size."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"an entry compressed by method {info.compress_type}, expected none or deflate")


def first_line(error: Exception) -> str:
    """Of what an error says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width} x {file.height} pixels, expected at most {MAX_PIXELS:,} in all")
            image = _to_mode(ImageOps.exif_transpose(file), "L" if shape[2] == 1 else "RGB")
    except Exception as error:  # Pillow's readers raise a dozen kinds for what is no image
        what = first_line(error)
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

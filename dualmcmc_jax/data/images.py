"""Image files in folders and zip files, and their conversion to cropped and resized uint8 arrays."""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES, MAX_PIXELS = 256_000_000, Image.MAX_IMAGE_PIXELS  # 89 million; Pillow warns above this size
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The formats that are decoded, whatever the file name. Pillow decodes some other formats with external programs."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

Crop = tuple[int, int, int, int]


def list_files(path: Path) -> dict[str, Callable[[], bytes]]:
    """Return {name: function that reads the file} of the images in a folder tree or zip file, sorted by name.

    Hidden files and files that macOS adds to zip files are left out.

    Raises:
      ValueError: there is no such folder or zip file.
    """
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): partial(_read, file) for file in path.rglob("*") if file.is_file()}
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except Exception as error:  # many types of errors, as in `_read_zipped`
            raise ValueError(
                f"data.source: found a damaged zip file {path} ({error}), expected an intact one"
            ) from error
        files = {
            info.filename: partial(_read_zipped, archive, info) for info in archive.infolist() if not info.is_dir()
        }
    else:
        found = "a file that is not a zip file" if path.is_file() else "nothing"
        raise ValueError(f"data.source: found {found} at {path}, expected a folder or zip file of images")
    is_hidden = lambda name: any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return {name: files[name] for name in sorted(files) if name.lower().endswith(SUFFIXES) and not is_hidden(name)}


def _read(file: Path) -> bytes:
    _check_size(file.stat().st_size)
    return file.read_bytes()


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read an entry of a zip file. Decompress at most one byte more than the size that its header states."""
    _check_size(info.file_size)
    try:
        check_compression(info)
        with archive.open(info) as file:
            return file.read(info.file_size + 1)
    except Exception as error:  # encryption, overlaps, unknown methods and wrong checksums raise different types
        raise ValueError(first_line(error).replace(repr(info), info.filename)) from error


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{num_bytes / 1e6:.0f} MB, expected at most {MAX_BYTES / 1e6:.0f}")


def check_compression(info: zipfile.ZipInfo) -> None:
    """Raise ValueError unless a zip entry is stored or deflated.

    Python decompresses entries of other methods in one piece, without a limit on their size.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"an entry with compression method {info.compress_type}, expected none or deflate")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def stamp(path: Path, name: str) -> tuple[int, int]:
    """Return the size in bytes and the modification time of a listed file, by which the cache detects changes."""
    status = (path / name if path.is_dir() else path).stat()
    return status.st_size, status.st_mtime_ns


def decode(data: bytes, shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """Decode an image file and fit the image to a shape.

    The first frame of an animation is used. The image is rotated according to its EXIF orientation. A transparent image
    is composited on white. Pixels of 16 bits are scaled to 8 bits.

    Args:
      data: the bytes of the file.
      shape: (size, size, 1 for gray or 3 for color).
      crop: (left, top, right, bottom) in pixels, or () for no crop.

    Returns:
      uint8 [H, W, C], see `fit`.

    Raises:
      ValueError: the image is damaged or too large, or the crop box is not inside the image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width} x {file.height} pixels, expected at most {MAX_PIXELS:,} in all")
            image = _to_mode(ImageOps.exif_transpose(file), "L" if shape[2] == 1 else "RGB")
    except Exception as error:  # Pillow raises many types of errors for invalid images
        message = first_line(error)
        raise ValueError("not an image" if message.startswith("cannot identify") else message) from error
    return fit(image, shape, crop)


def from_array(x: np.ndarray, shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """Fit a decoded image, uint8 or uint16 [H, W, 1 or 3], to a shape, as `decode` does."""
    if x.dtype == np.uint16:
        x = np.round(x / 257).astype(np.uint8)
    return fit(
        _to_mode(Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x), "L" if shape[2] == 1 else "RGB"), shape, crop
    )


def fit(image: Image.Image, shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """Crop an 8-bit image to `crop` and then to its largest centered square, and resize it to a shape.

    Resizing is bilinear with antialiasing.

    Returns:
      uint8 [H, W, C].
    """
    if crop:
        if crop[2] > image.width or crop[3] > image.height:
            raise ValueError(f"data.crop is {tuple(crop)}, but the image has {image.width} x {image.height} pixels")
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

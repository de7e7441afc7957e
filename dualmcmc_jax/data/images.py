"""Image files in folders and zip files, and their conversion to cropped and resized uint8 arrays."""

import errno
import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES, MAX_PIXELS = 256_000_000, Image.MAX_IMAGE_PIXELS  # 89 million; Pillow warns above this size
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are decoded, whatever the file name. Pillow decodes some other formats with external programs."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""The ends of the names of image files, in lower case."""

_PNG = b"\x89PNG\r\n\x1a\n"

Crop = tuple[int, int, int, int]


def list_files(path: Path) -> dict[str, Callable[[], bytes]]:
    """Return {name: function that reads the file} of the files in a folder tree or zip file, sorted by name.

    Linked folders are followed. Hidden files and files that macOS adds to zip files are left out.

    Raises:
      ValueError: there is no such folder or zip file, a folder in it cannot be read, or two images in a zip file have
        the same name.
    """
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): partial(_read, file) for file in _walk(path)}
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except Exception as error:  # many types of errors, as in `_read_zipped`
            raise ValueError(
                f"data.source: found a damaged zip file {path} ({error}), expected an intact one"
            ) from error
        entries = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
        counts = Counter(name for name in (_plain(info.filename) for info in entries) if is_image(name))
        name, count = counts.most_common(1)[0] if counts else ("", 0)
        if count > 1:
            raise ValueError(f"data.source: found {count} images named {name} in {path}, expected different names")
        files = {_plain(info.filename): partial(_read_zipped, archive, info) for info in entries}
    else:
        found = "a file that is not a zip file" if path.is_file() else "nothing"
        raise ValueError(f"data.source: found {found} at {path}, expected a folder or zip file of images")
    return {name: files[name] for name in sorted(files) if not any(map(_is_hidden, name.split("/")))}


def _is_hidden(part: str) -> bool:
    return part.startswith((".", "__MACOSX"))


def _plain(name: str) -> str:
    """Return the name of a zip entry with "/" between folders. Some programs write "\\", or "./" at the beginning."""
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files in a folder tree, and links to nothing. Follow links to folders unless they form a loop.

    Two links to one folder are two folders. But a link inside of a linked folder is not followed to a folder that was
    already visited: folders that link to each other would be visited once for each of very many ways.
    """
    visited = set()

    def is_followed(folder: Path, *, inside_link: bool) -> bool:
        if not folder.is_symlink():
            return True
        return not _is_loop(folder, root) and not (inside_link and _identity(folder) in visited)

    def unreadable(error: OSError):
        found = f"{error.filename} unreadable ({error.strerror})"
        raise ValueError(f"data.source: found {found}, expected only folders that can be read") from error

    try:
        for name, subfolders, files in os.walk(root, onerror=unreadable, followlinks=True):
            folder = Path(name)
            visited.add(_identity(folder))
            inside_link = any(parent.is_symlink() for parent in _below(root, folder))
            subfolders[:] = [
                sub
                for sub in sorted(subfolders)
                if not _is_hidden(sub) and is_followed(folder / sub, inside_link=inside_link)
            ]
            yield from (file for file in map(folder.joinpath, files) if file.is_file() or not file.exists())
    except OSError as error:  # a link into a folder without permission
        unreadable(error)


def _is_loop(folder: Path, root: Path) -> bool:
    """Return whether a link leads to a folder that contains one of the folders between the root and the link."""
    target = folder.resolve()
    return any(parent.resolve().is_relative_to(target) for parent in folder.parents if parent.is_relative_to(root))


def _below(root: Path, folder: Path) -> list[Path]:
    """Return a folder and the folders that contain it, up to the root, which is left out."""
    return [path for path in (folder, *folder.parents) if path != root and path.is_relative_to(root)]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


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
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # not a seek to an offset that the file states
            raise
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


def stamp(path: Path, name: str) -> tuple[int, int, int]:
    """Return the size in bytes and two times of a listed file, by which the cache detects changes.

    A program that copies files may set the time of modification, but not the time of the last change of the inode.
    """
    try:
        status = (path / name if path.is_dir() else path).stat()
    except OSError:  # a link to nothing
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_image(name: str) -> bool:
    """Return whether the name of a file is that of an image."""
    return name.lower().endswith(SUFFIXES)


def load(paths: str | Path | Iterable[str | Path], shape: tuple[int, int, int], crop: Crop | tuple[()]) -> np.ndarray:
    """Load image files and fit them to a shape.

    Args:
      paths: one image file, or several, or a folder or zip file of images, which are then sorted by their names.
      shape: (size, size, 1 for gray or 3 for color).
      crop: (left, top, right, bottom) in pixels, or () for no crop.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      ValueError: there are no images, a file is missing or cannot be decoded, or the shape is another one.
    """
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise ValueError(f"data.shape: found {shape}, expected (S, S, 1) or (S, S, 3) to load image files")
    files = _readers(paths)
    if not files:
        raise ValueError("paths: found no images, expected image files, or a folder or zip file of them")
    loaded = []
    for name, read in files:
        try:
            loaded.append(decode(read(), shape, crop))
        except (ValueError, OSError) as error:
            problem = getattr(error, "strerror", None) or first_line(error)
            raise ValueError(f"paths: found {name} unreadable ({problem}), expected an image file") from error
    return np.stack(loaded)


def _readers(paths: str | Path | Iterable[str | Path]) -> list[tuple[str, Callable[[], bytes]]]:
    """Return (name, function that reads the file) of image files, or of the images in a folder or zip file."""
    if not isinstance(paths, str | Path):
        return [(str(path), partial(_read, Path(path).expanduser())) for path in paths]
    path = Path(paths).expanduser()
    if path.is_dir() or zipfile.is_zipfile(path):
        try:
            return [(name, read) for name, read in list_files(path).items() if is_image(name)]
        except ValueError as error:
            raise ValueError(str(error).replace("data.source", "paths", 1)) from error
    return [(str(path), partial(_read, path))]


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
    mode = "L" if shape[2] == 1 else "RGB"
    try:
        try:
            image = _open(data, mode)
        except Exception:
            if not data.startswith(_PNG):
                raise
            image = _open(_without_metadata(data), mode)
    except Exception as error:  # Pillow raises many types of errors for invalid images
        message = first_line(error)
        raise ValueError("not an image" if message.startswith("cannot identify") else message) from error
    return fit(image, shape, crop)


def _open(data: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels, expected at most {MAX_PIXELS:,} in all")
        bits = _tiff_bits(file) if file.format == "TIFF" else 16
        file.load()
        image = file
        if file.format == "BMP" and file.mode == "RGBA" and file.getextrema()[3] == (0, 0):
            image = file.convert("RGB")  # the program that wrote the file left the bytes for transparency empty
        if file.format == "PNG" and "transparency" in file.info:
            file.info["transparency"] = _transparent_value(file, depth=data[24])
        try:
            upright = ImageOps.exif_transpose(image)
        except (SyntaxError, ValueError, struct.error):  # damaged EXIF data: show the image as viewers do
            upright = image
        return _to_mode(upright, mode, bits)


def _tiff_bits(file: Image.Image) -> int:
    """Return the number of bits of a value in a TIFF file. Raise ValueError unless it is unsigned and 8, 12 or 16."""
    bits, kind = (file.tag_v2.get(tag, (default,))[0] for tag, default in ((258, 16), (339, 1)))
    if file.mode in ("F", "I") or kind in (2, 3):
        name = {2: "signed integers", 3: "floating-point numbers"}.get(kind, "unsigned integers")
        raise ValueError(f"pixels that are {name} of {bits} bits, expected unsigned integers of 8, 12 or 16 bits")
    return bits


def _transparent_value(png: Image.Image, *, depth: int) -> Any:
    """Return the value of transparent pixels of a PNG file as it is after Pillow has scaled the pixels.

    Pillow scales gray pixels of 2 and 4 bits to 8 bits, and keeps the high bytes of colors of 16 bits, but gives the
    transparent value of the file.
    """
    value = png.info["transparency"]
    if png.mode == "L" and depth in (2, 4):
        return value * (255 // (2**depth - 1))
    if png.mode == "RGB" and depth == 16:
        return tuple(channel >> 8 for channel in value)
    return value


def _without_metadata(png: bytes) -> bytes:
    """Return a PNG file without the chunks that are not needed to show it.

    Pillow refuses files with large texts or color profiles, or with a wrong checksum in any chunk. The PNG standard
    calls the chunks that begin with a capital letter critical. Of the others, transparency and orientation are kept.
    """
    kept, start = [_PNG], len(_PNG)
    while start + 12 <= len(png):
        (length,) = struct.unpack(">I", png[start : start + 4])
        chunk = png[start : start + 12 + length]
        kind, intact = chunk[4:8], zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or (kind in (b"tRNS", b"eXIf") and intact):
            kept.append(chunk)
        start += len(chunk)
    return b"".join(kept)


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


def _to_mode(image: Image.Image, mode: str, bits: int = 16) -> Image.Image:
    """Convert an image to 8 bits. `bits` is the number of bits per pixel of gray images of more than 8 bits."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image, np.float64)
        scaled = np.round(pixels / ((2**bits - 1) / 255)).clip(0, 255).astype(np.uint8)
        if "transparency" in image.info:
            scaled[pixels == image.info["transparency"]] = 255  # white
        image = Image.fromarray(scaled)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)

"""Images of many formats, from folders, zips, npz files and TensorFlow Datasets."""

import errno
import io
import os
import re
import shutil
import struct
import sys
import types
import zipfile
import zlib

import numpy as np
import pytest
import tiny
from PIL import Image

from dualmcmc_jax.data import images, sources

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data(source, **fields):
    return tiny.config(
        data__source=source, **{"data__shape": (8, 8, 3)} | {f"data__{k}": v for k, v in fields.items()}
    ).data


def decode(image, shape=(8, 8, 3), crop=(), kind="PNG", **options):
    return images.decode(encoded(image, kind, **options), shape, crop)


def left_red(mode="RGB", size=(8, 8)):
    """Return a white image with a red left half."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def test_color_modes_are_decoded_as_in_an_image_viewer():
    expected = np.asarray(left_red())
    for mode in ("RGB", "P", "RGBA"):
        np.testing.assert_array_equal(decode(left_red(mode)), expected, err_msg=mode)
    np.testing.assert_allclose(decode(left_red("CMYK"), kind="JPEG", quality=100, subsampling=0), expected, atol=6)
    gray = np.asarray(left_red("L"))
    np.testing.assert_array_equal(decode(left_red(), (8, 8, 1))[..., 0], gray)
    for mode in ("L", "LA"):
        np.testing.assert_array_equal(decode(left_red(mode)), np.stack([gray] * 3, -1), err_msg=mode)
    np.testing.assert_array_equal(decode(Image.new("1", (8, 8), 1)), 255)


def test_transparent_pixels_become_white():
    image = left_red("RGBA")
    image.putalpha(0)
    np.testing.assert_array_equal(decode(image), 255)
    palette = left_red("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    np.testing.assert_array_equal(decode(palette, transparency=palette.getpixel((0, 0))), 255)


def test_sixteen_bit_pixels_are_scaled_to_eight_bits():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    actual = decode(Image.fromarray(values), (8, 8, 1))[..., 0]
    np.testing.assert_array_equal(actual, np.round(values / 257).astype(np.uint8))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("depth", "channels", "value", "row"),
    [
        (1, 1, 0, b"\x0f"),
        (2, 1, 1, b"\x55\xff"),
        (4, 1, 5, b"\x55\x55\xff\xff"),
        (8, 1, 80, b"\x50" * 4 + b"\xff" * 4),
        (16, 1, 20000, b"\x4e\x20" * 4 + b"\xff" * 8),
        (8, 3, 80, b"\x50" * 12 + b"\xff" * 12),
        (16, 3, 20000, b"\x4e\x20" * 12 + b"\xff" * 24),
    ],
)
def test_pixels_of_the_transparent_value_become_white(depth, channels, value, row):
    """Four pixels of each row have the value, and four are white. Pillow writes no such PNG files."""
    header = struct.pack(">IIBBBBB", 8, 8, depth, 2 if channels == 3 else 0, 0, 0, 0)
    png = lambda transparent: (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", struct.pack(">H", transparent) * channels)
        + chunk(b"IDAT", zlib.compress((b"\0" + row) * 8))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(images.decode(png(value), (8, 8, channels), ()), 255)
    other = value ^ (256 if depth == 16 else 1)
    assert (images.decode(png(other), (8, 8, channels), ())[:, :4] < 100).all()


@pytest.mark.parametrize(("alpha", "expected"), [(0, (30, 20, 10)), (255, (30, 20, 10)), (51, (210, 208, 206))])
def test_bitmap_whose_alpha_is_zero_everywhere_is_opaque(alpha, expected):
    """Pillow writes no BMP with alpha, so the bytes are made here."""
    pixels = bytes([10, 20, 30, alpha]) * 64
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + bytes(52)
    bitmap = b"BM" + struct.pack("<IHHI", 14 + 108 + len(pixels), 0, 0, 14 + 108) + header + pixels
    np.testing.assert_array_equal(images.decode(bitmap, (8, 8, 3), ()), np.full((8, 8, 3), expected))


def tiff(pixels, *, bits, kind=1):
    """Return a gray TIFF file of 8 x 8 pixels. Pillow does not write all kinds of TIFF files."""
    entry = lambda tag, value: struct.pack("<HHII", tag, 3, 1, value)
    tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, len(pixels))]
    tags.append((339, kind))
    header = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return header + pixels + struct.pack("<H", len(tags)) + b"".join(entry(*tag) for tag in tags) + bytes(4)


def test_twelve_bit_pixels_are_scaled_to_eight_bits():
    """Each row holds four white and four black pixels."""
    pixels = (b"\xff" * 6 + bytes(6)) * 8
    image = images.decode(tiff(pixels, bits=12), (8, 8, 1), ())
    np.testing.assert_array_equal(image[0, :, 0], [255] * 4 + [0] * 4)


@pytest.mark.parametrize(
    ("bits", "kind", "found"),
    [
        (8, 2, "signed integers of 8 bits"),
        (16, 2, "signed integers of 16 bits"),
        (32, 2, "signed integers of 32 bits"),
        (32, 1, "unsigned integers of 32 bits"),
        (32, 3, "floating-point numbers of 32 bits"),
    ],
)
def test_kinds_of_tiff_pixels_that_cannot_be_read_are_named(bits, kind, found):
    expected = f"^pixels that are {found}, expected unsigned integers of 8, 12 or 16 bits$"
    with pytest.raises(ValueError, match=expected):
        images.decode(tiff(bytes(8 * bits), bits=bits, kind=kind), (8, 8, 1), ())


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    actual = decode(left_red(), kind="JPEG", quality=100, subsampling=0, exif=exif)
    np.testing.assert_allclose(actual, np.asarray(left_red())[:, ::-1], atol=6)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_first_frame_of_an_animation_is_used(kind, options):
    frames = [Image.new("RGB", (8, 8))]
    actual = decode(left_red(), kind=kind, save_all=True, append_images=frames, **options)
    np.testing.assert_array_equal(actual, np.asarray(left_red()))


def test_images_are_cropped_then_centered_then_resized():
    """The pixels of column i have the value i, so the values identify the columns that remain."""
    columns = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (16, 1)))
    np.testing.assert_array_equal(decode(columns, (16, 16, 1))[0, :, 0], np.arange(12, 28))
    np.testing.assert_array_equal(decode(columns, (8, 8, 1), (4, 0, 12, 8))[0, :, 0], np.arange(4, 12))
    np.testing.assert_allclose(decode(columns, (8, 8, 1))[0, 1:-1, 0], np.arange(12.5, 28, 2)[1:-1], atol=1)


def folder_of(path, names, size=(8, 8)):
    """Write images to a folder. Image i has the color (i, 0, 0)."""
    for i, name in enumerate(names):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 0, 0)).save(file)
    return path


def reds(x):
    """Return the red value of each image's first pixel."""
    return x[:, 0, 0, 0].tolist()


def test_folders_and_zips_with_and_without_splits_are_read(tmp_path):
    flat = folder_of(tmp_path / "flat", [f"{i:02d}.png" for i in range(20)])
    (flat / "notes.txt").write_text("no image")
    (flat / ".hidden.png").write_bytes(b"")
    dataset = sources.load(data(f"images:{flat}"))
    assert reds(dataset.test) == [9, 19]
    assert reds(dataset.train) == [i for i in range(20) if i % 10 != 9]
    assert isinstance(dataset.train, np.memmap)

    names = ["train/a/0.PNG", "train/b/1.png", "test/a/2.png"]
    split = folder_of(tmp_path / "split", names)
    dataset = sources.load(data(f"images:{split}"))
    assert (reds(dataset.train), reds(dataset.test)) == ([0, 1], [2])

    with zipfile.ZipFile(tmp_path / "split.zip", "w") as archive:
        for name in names:
            archive.write(split / name, name)
        archive.writestr("__MACOSX/train/._0.png", b"")
    dataset = sources.load(data(f"images:{tmp_path / 'split.zip'}"))
    assert (reds(dataset.train), reds(dataset.test)) == ([0, 1], [2])


SPLITS = {
    "a single top folder": (["photos/train/0.png", "photos/train/1.png", "photos/test/2.png"], "train/ and test/"),
    "two top folders": (["a/b/train/0.png", "a/b/train/1.png", "a/b/test/2.png"], "train/ and test/"),
    "capitals": (["Train/0.png", "Train/1.png", "TEST/2.png"], "Train/ and TEST/"),
    "no test": (["train/0.png", "train/1.png", "val/2.png"], "train/ and val/"),
    "all three": (["train/0.png", "train/1.png", "test/2.png", "valid/3.png"], "train/ and test/; 1 other images not"),
    "names of splits inside": (["train/test/0.png", "train/val/1.png", "test/train/2.png"], "train/ and test/"),
    "a folder for each class": (["cats/0.png", "dogs/1.png", "eels/2.png"], "every tenth held out"),
    "only train": (["train/cats/0.png", "train/cats/1.png", "train/dogs/2.png"], "every tenth held out"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_recognized(name, tmp_path):
    names, notes = SPLITS[name]
    dataset = sources.load(data(f"images:{folder_of(tmp_path / 'images', names)}"))
    assert (reds(dataset.train), reds(dataset.test)) == ([0, 1], [2])
    assert notes in dataset.notes


@pytest.mark.parametrize("change", [lambda name: f"./{name}", lambda name: name.replace("/", "\\")])
def test_splits_in_zip_files_of_other_programs_are_recognized(change, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(["a/train/0.png", "a/train/1.png", "a/test/2.png"]):
            archive.writestr(change(name), encoded(Image.new("RGB", (8, 8), (i, 0, 0))))
    dataset = sources.load(data(f"images:{path}"))
    assert (reds(dataset.train), reds(dataset.test)) == ([0, 1], [2])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["a/0.png", "a/0.png", "1.png"], ["a/0.png", "./a/0.png", "1.png"]])
def test_images_of_the_same_name_in_a_zip_file_are_refused(names, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, encoded(left_red()))
    with pytest.raises(ValueError, match=r"^data.source: found 2 images named a/0.png in .*a.zip, expected different"):
        sources.load(data(f"images:{tmp_path / 'a.zip'}"))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train/0.png", "Train/1.png", "test/2.png"], "Train/, train/, test/"),
        (["train/0.png", "val/1.png", "dev/2.png"], "dev/, train/, val/"),
        (["train/0.png", "more/1.png"], "train/"),
        (["train/0.png", "1.png"], "train/"),
        (["test/0.png", "val/1.png"], "test/, val/"),
        (["cats/train/0.png", "cats/test/1.png", "dogs/train/2.png"], "cats/test/, cats/train/, dogs/train/"),
    ],
)
def test_ambiguous_splits_are_refused(names, found, tmp_path, cache):
    path = folder_of(tmp_path / "images", names)
    with pytest.raises(ValueError, match="expected one train/ and one test/") as error:
        sources.load(data(f"images:{path}"))
    assert sorted(str(error.value).partition("(")[2].partition(")")[0].split(", ")) == sorted(found.split(", "))
    assert not cache.exists()


def test_linked_folders_are_followed_unless_they_form_a_loop(tmp_path):
    """Two links to one folder are two folders. A link to a folder around itself is not followed."""
    pool = folder_of(tmp_path / "pool", ["0.png", "deep/1.png"])
    (pool / "deep" / "loop").symlink_to(pool)
    for name in ("train", "test"):
        folder_of(tmp_path / "images" / name, ["0.png"])
        (tmp_path / "images" / name / "linked").symlink_to(pool)
    (tmp_path / "images" / "up").symlink_to("..")
    dataset = sources.load(data(f"images:{tmp_path / 'images'}"))
    assert reds(dataset.train) == reds(dataset.test) == [0, 0, 1]
    assert dataset.notes == "train/ and test/"


def test_folders_that_link_to_each_other_end(tmp_path):
    """Without a limit, the seven folders would be visited in 13,700 ways."""
    names = [f"{i}" for i in range(7)]
    for name in names:
        folder_of(tmp_path / name, ["0.png"])
        for other in names:
            (tmp_path / name / f"to{other}").symlink_to(tmp_path / other)
    files = images.list_files(tmp_path)
    assert {"0/0.png", "6/0.png", "0/to6/0.png", "6/to0/0.png", "0/to1/to2/0.png"} <= files.keys()
    assert len(files) < 7 * 7 * 2


def test_image_that_is_a_link_to_nothing_is_refused_or_left_out(tmp_path):
    path = folder_of(tmp_path / "images", ["0.png", "1.png"])
    (path / "0gone.png").symlink_to("nothing")
    with pytest.raises(ValueError, match=r"1 of 3 images that cannot be read, the first is 0gone.png"):
        sources.load(data(f"images:{path}"))
    dataset = sources.load(data(f"images:{path}", skip_bad=True))
    assert dataset.notes == "every tenth held out; skipped 1 files: 1 unreadable"


def test_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path = folder_of(tmp_path / "images", ["0.png", "1.png", "locked/2.png", ".hidden/3.png"])
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith(("locked", ".hidden")):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"^data.source: found .*/locked unreadable \(Permission denied\), expected"):
        sources.load(data(f"images:{path}"))


def test_images_of_all_formats_are_read_and_other_files_are_counted(tmp_path):
    names = [f"0{suffix}" for suffix in images.SUFFIXES if "." in suffix]
    path = folder_of(tmp_path / "images", [name for name in names if not name.endswith(".jpe")], (16, 16))
    (path / "a.heic").touch()
    (path / "b.HEIC").touch()
    (path / "README").touch()
    dataset = sources.load(data(f"images:{path}"))
    assert len(dataset.train) + len(dataset.test) == len(names) - 1 == 9
    assert dataset.notes == "every tenth held out; skipped 3 files: 2 with .heic, 1 with no suffix"


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"scan\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"tEXt", b"k\0v")[:-4] + bytes(4),
        chunk(b"eXIf", b"damaged")[:-4] + bytes(4),
    ],
    ids=["text", "profile", "text checksum", "orientation checksum"],
)
def test_png_with_odd_metadata_is_read(metadata):
    """Transparency and orientation are kept, because they change what is seen."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    palette = left_red("P")
    png = encoded(palette, transparency=palette.getpixel((7, 0)), exif=exif)
    odd = png[:33] + metadata + png[33:]
    np.testing.assert_array_equal(images.decode(odd, (8, 8, 3), ()), images.decode(png, (8, 8, 3), ()))
    damaged = odd.replace(b"IDAT", b"IDAt")
    with pytest.raises(ValueError, match=r"."):
        images.decode(damaged, (8, 8, 3), ())


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_image_with_damaged_orientation_is_read(kind, options):
    for exif in (b"damaged data", b"Exif\0\0II*\0"):
        np.testing.assert_array_equal(decode(left_red(), kind=kind, exif=exif, **options), np.asarray(left_red()))


def test_images_are_decoded_once(tmp_path, cache, monkeypatch):
    folder = folder_of(tmp_path / "images", ["0.png", "1.png", "2.png"])
    first = sources.load(data(f"images:{folder}"))
    calls = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda *args: calls.append(1) or real(*args))
    second = sources.load(data(f"images:{folder}"))
    np.testing.assert_array_equal(first.train, second.train)
    assert not calls
    folder_of(folder, ["0.png", "1.png", "2.png", "3.png"], (9, 9))  # the images change
    assert len(sources.load(data(f"images:{folder}")).train) == 3
    assert len(calls) == 4
    sources.load(data(f"images:{folder}", shape=(16, 16, 3)))
    assert len(calls) == 8
    assert {path.name[0] for path in (cache / "dualmcmc_jax" / "data").iterdir()} != {"."}


def test_cache_notices_files_replaced_by_others_of_the_same_size_and_date(tmp_path):
    path = folder_of(tmp_path / "images", ["0.bmp", "1.bmp", "2.bmp"])
    assert reds(sources.load(data(f"images:{path}")).train) == [0, 1]
    status = (path / "0.bmp").stat()
    (path / "0.bmp").write_bytes(encoded(Image.new("RGB", (8, 8), (99, 0, 0)), "BMP"))
    os.utime(path / "0.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path / "0.bmp").stat().st_size == status.st_size
    assert reds(sources.load(data(f"images:{path}")).train) == [99, 1]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_failure_of_the_disk_is_not_a_bad_image(kind, tmp_path, cache, monkeypatch):
    path = folder_of(tmp_path / "images", ["0.png", "1.png", "2.png"])
    if kind == "zip":
        path = shutil.make_archive(path, "zip", path)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(images.Path, "read_bytes", fail)
        patch.setattr(zipfile.ZipExtFile, "read", fail)
        with pytest.raises(
            ValueError, match=r"^data.source: found [012].png unreadable \(Input/output error\), expected"
        ):
            sources.load(data(f"images:{path}", skip_bad=True))
    assert not list((cache / "dualmcmc_jax" / "data").iterdir())
    assert sources.load(data(f"images:{path}", skip_bad=True)).notes == "every tenth held out"


def test_bad_images_are_named_and_counted(tmp_path, cache, caplog):
    folder = folder_of(tmp_path / "images", [*(f"{i}.png" for i in range(6)), "z.png"])
    whole = encoded(left_red(size=(64, 64)), "JPEG")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"found 2 of 9 images that cannot be read, the first is cut.jpg: .*runcated"):
        sources.load(data(f"images:{folder}"))
    assert not list((cache / "dualmcmc_jax" / "data").iterdir())
    dataset = sources.load(data(f"images:{folder}", skip_bad=True))
    assert sorted(reds(dataset.train) + reds(dataset.test)) == list(range(7))
    assert "left out 2 of 9 images" in caplog.text


def test_npz_files_are_read(tmp_path):
    pixels = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8)
    np.savez(tmp_path / "one.npz", pixels)
    dataset = sources.load(data(f"npz:{tmp_path / 'one.npz'}", shape=(8, 8, 1)))
    np.testing.assert_array_equal(dataset.test[..., 0], pixels[[9, 19]])
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.savez_compressed(tmp_path / "two.npz", train=vectors[:3], test=vectors[3:])
    dataset = sources.load(data(f"npz:{tmp_path / 'two.npz'}", shape=(3,)))
    np.testing.assert_array_equal(dataset.train, vectors[:3].astype(np.float32))
    assert dataset.test.dtype == np.float32


PIXELS, VECTORS = np.zeros((40, 8, 8, 1), np.uint8), np.zeros((40, 3))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.zeros((40, 3, 8, 8), np.uint8)},
            r"uint8 \(40, 3, 8, 8\) in array 'x' of .*, whose channels come first",
        ),
        ({"x": np.zeros((40, 8, 8, 5), np.uint8)}, r"uint8 \(40, 8, 8, 5\) in array 'x'"),
        ({"train": PIXELS, "test": PIXELS[:0]}, r"uint8 \(0, 8, 8, 1\) in 'test'.*expected 1 example or more"),
        ({"train": PIXELS[:0], "test": PIXELS}, r"uint8 \(0, 8, 8, 1\) in 'train'"),
        ({"x": PIXELS[:1]}, r"uint8 \(0, 8, 8, 1\) in 'train'"),
        ({"train": PIXELS, "y": PIXELS}, r"arrays 'train', 'y' in .*, expected 'train' and 'test', or one array"),
        (
            {"train": PIXELS, "test": PIXELS[:, 1:]},
            r"examples of uint8 \(7, 8, 1\) in 'test' of .* uint8 \(8, 8, 1\) as in 'train'",
        ),
        (
            {"train": VECTORS, "test": PIXELS},
            r"examples of uint8 \(8, 8, 1\) in 'test' of .* float32 \(3,\) as in 'train'",
        ),
        ({"train": VECTORS, "test": VECTORS + np.nan}, r"NaN or infinite numbers in array 'test'"),
        ({"train": VECTORS, "test": VECTORS + 1e300}, r"NaN or infinite numbers in array 'test'"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_npz_arrays_that_do_not_fit_are_named(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"^data.source: found {message}"):
        sources.load(data(f"npz:{tmp_path / 'a.npz'}", shape=(8, 8, 1)))


@pytest.mark.parametrize(("highest", "warned"), [(1, True), (2, False)])
def test_images_of_zeros_and_ones_are_noticed(highest, warned, tmp_path, caplog):
    path = tmp_path / "a.npz"
    np.savez(path, train=PIXELS, test=PIXELS + np.uint8(highest))
    sources.load(data(f"npz:{path}", shape=(8, 8, 1)))
    sources.load_all(str(path), data("digits", shape=(8, 8, 1)), argument="--input")
    line = r"(data.source|--input): found only pixels of 0 and 1 in .*a.npz, .* expected 0 to 255; they are used"
    assert [bool(re.match(line, message)) for message in caplog.messages] == [True, True] * warned


def test_vectors_of_zeros_and_ones_are_not_noticed(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", VECTORS)
    sources.load(data(f"npz:{tmp_path}/a.npz", shape=(3,)))
    assert not caplog.messages


def test_all_held_out_images_are_bad(tmp_path, cache):
    path = folder_of(tmp_path / "images", ["train/0.png", "train/1.png", "test/2.png"])
    (path / "test" / "2.png").write_text("not an image")
    with pytest.raises(
        ValueError, match=r"1 of 3 images .*test/2.png: .* expected one held-out image or more that can"
    ):
        sources.load(data(f"images:{path}", skip_bad=True))
    assert not list((cache / "dualmcmc_jax" / "data").iterdir())


def test_data_set_is_described_in_one_line(tmp_path):
    assert (
        sources.describe(sources.load(tiny.config().data))
        == "1,500 images of 8 x 8 x 1 to train, 297 held out, from digits"
    )
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 3)))
    line = sources.describe(sources.load(data(f"npz:{tmp_path}/a.npz", shape=(3,))))
    notes = "every tenth of array 'x' held out"
    assert line == f"36 vectors of 3 numbers to train, 4 held out, from npz:{tmp_path}/a.npz ({notes})"


def test_digests_change_with_the_examples():
    x = np.arange(3000 * 4, dtype=np.float32).reshape(3000, 4)
    digests = lambda x: sources.digests(sources.Dataset(x, x[:3]))
    first = digests(x)
    assert first == digests(x.copy())
    assert (first["train"]["examples"], first["test"]["examples"]) == (3000, 3)
    assert first["train"]["sha256"] != digests(x[::-1])["train"]["sha256"]
    x[-1, -1] += 1
    assert first["train"]["sha256"] != digests(x)["train"]["sha256"]
    assert first["test"] == digests(x)["test"]
    assert not sources.digests(sources.load(data("toy2d:rings", shape=(2,))))


def test_mocked_tfds_data_sets_are_read():
    """The mocked data sets have their real shapes and random pixels."""
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=5):
        assert sources.load(data("tfds:cifar10", shape=(32, 32, 3))).train.shape == (5, 32, 32, 3)
        celeba = sources.load(data("tfds:celeb_a", shape=(64, 64, 3), crop=(15, 40, 163, 188)))
        assert celeba.train.shape == (5, 64, 64, 3)
        assert sources.load(data("tfds:mnist", shape=(32, 32, 1))).test.shape == (5, 32, 32, 1)


def test_tfds_data_set_is_prepared_and_cached(tmp_path, monkeypatch):
    """A data set is prepared as array_record. Its decoded images stay in the cache. A TFRECORD copy is refused.

    If there is only a training split, every tenth image is held out.
    """
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    class Reds(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples(0, 6), "validation": self._generate_examples(6, 9)}

        def _generate_examples(self, start, stop):
            for i in range(start, stop):
                yield i, {"image": np.full((10, 8, 3), i, np.uint8)}

    class OneSplit(Reds):
        def _split_generators(self, _):
            return {"train": self._generate_examples(0, 20)}

    folder = tmp_path / "tfds"
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    dataset = sources.load(data("tfds:reds"))
    assert sorted(reds(dataset.train)) == [0, 1, 2, 3, 4, 5]
    assert sorted(reds(dataset.test)) == [6, 7, 8]
    shutil.rmtree(folder)
    np.testing.assert_array_equal(sources.load(data("tfds:reds")).train, dataset.train)

    dataset = sources.load(data("tfds:one_split"))
    assert len(dataset.train) == 18
    assert sorted([*reds(dataset.train), *reds(dataset.test)]) == [*range(20)]

    tfds.builder("reds", data_dir=str(folder)).download_and_prepare()
    with pytest.raises(ValueError, match=r"has another format, expected array_record: convert"):
        sources.load(data("tfds:reds", shape=(16, 16, 3)))


def test_missing_packages_of_tfds_are_named_with_the_extra_that_installs_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"^data\.source: found 'tfds:reds', .* `pip install 'dualmcmc_jax\[tfds\]'`"):
        sources.load(data("tfds:reds"))

    class Builder:
        def __init__(self, *_, **__):
            self.info = types.SimpleNamespace(features={"image": None})

        def download_and_prepare(self):
            raise ImportError("no tensorflow\nmore")

    core = types.SimpleNamespace(DatasetNotFoundError=KeyError)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.SimpleNamespace(builder=Builder, core=core))
    with pytest.raises(ValueError, match=r"not prepared .* `pip install 'dualmcmc_jax\[tfds\]'` .*: no tensorflow$"):
        sources.load(data("tfds:reds"))


def test_old_temporary_folders_of_the_cache_are_removed(tmp_path, cache):
    """Killed processes leave such folders. A path that no longer exists, here a dead link, is ignored."""
    data_folder = cache / "dualmcmc_jax" / "data"
    (data_folder / ".old").mkdir(parents=True)
    (data_folder / ".new").mkdir()
    (data_folder / ".gone").symlink_to("nothing")
    os.utime(data_folder / ".old", (0, 0))
    sources.load(data(f"images:{folder_of(tmp_path / 'images', ['0.png', '1.png'])}"))
    assert {path.name for path in data_folder.glob(".*")} == {".new", ".gone"}


@pytest.mark.parametrize(
    ("source", "near"),
    [
        ("photos", "images:photos"),
        ("photos/", "images:photos/"),
        ("a.npz", "npz:a.npz"),
        ("image:photos", "images:photos"),
        ("digit", "digits"),
        ("toy2d:ring", "toy2d:rings"),
        ("zzz", ""),
    ],
)
def test_nearest_source_is_suggested(source, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.npz").touch()
    with pytest.raises(ValueError, match="found") as error:
        sources.load(data(source))
    assert str(error.value).endswith(f"; did you mean {near}?" if near else "or 'tfds:NAME'")

"""Images of every kind: read as they look, or refused by name, large ones from their header."""

import io
import json
import logging
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from foodgen.core.errors import DataError
from foodgen.data.checking import check_folder
from foodgen.data.folder import Folder, read_image
from foodgen.data.images import as_rgb, opened
from foodgen.data.packed import Packed
from foodgen.data.prepare import square_of
from tests.faults.photos import class_folders, dropped, encoded, image_of, prepared, put
from tests.faults.test_huge_images import png_of


def colour(image):
    """The mean colour of what a training reads, and of what the preparation makes."""
    return np.asarray(image, dtype=float).reshape(-1, 3).mean(0)


GREEN = Image.new("RGB", (16, 16), (0, 128, 64))


CLEAR = Image.new("RGBA", (16, 16), (0, 0, 0, 0))


def palette_with_transparency():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    return encoded(image, "PNG", transparency=1)


def moving(kind):
    return encoded(GREEN, kind, save_all=True, append_images=[Image.new("RGB", (16, 16), "red")], lossless=True)


KINDS = {
    "moving gif": (moving("GIF"), (0, 128, 64)),
    "moving webp": (moving("WEBP"), (0, 128, 64)),
    "moving png": (moving("PNG"), (0, 128, 64)),
    "cmyk": (encoded(GREEN.convert("CMYK"), "JPEG", quality=100), (0, 128, 64)),
    "16 bit grey": (encoded(Image.fromarray(np.full((16, 16), 40000, np.uint16))), (156, 156, 156)),
    "16 bit grey tiff": (encoded(Image.fromarray(np.full((16, 16), 40000, np.uint16)), "TIFF"), (156, 156, 156)),
    "black and white": (encoded(Image.new("1", (16, 16), 1)), (255, 255, 255)),
    "palette": (encoded(GREEN.quantize(4)), (0, 128, 64)),
    "clear palette": (palette_with_transparency(), (255, 255, 255)),
    "clear": (encoded(CLEAR), (255, 255, 255)),
    "clear grey": (encoded(CLEAR.convert("LA")), (255, 255, 255)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind_are_read_as_they_look(tmp_path, kind):
    content, expected = KINDS[kind]
    folder = class_folders(tmp_path / "in", count=1)
    path = put(folder / "apple" / "odd.png", content)
    with Image.open(io.BytesIO(square_of(content, 16, 8, 95))) as made:
        assert made.mode == "RGB"
        assert np.abs(colour(made) - expected).max() < 4
    assert np.abs(colour(read_image(path, 16).transpose(1, 2, 0)) - expected).max() < 4
    assert not check_folder(folder, 16).errors


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright_though_they_would_be_copied(tmp_path, orientation):
    """A JPEG of the right size that EXIF turns is turned, not copied; a training sees it upright too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image_of(3, (4, 4)).resize((16, 16), 0), "JPEG", quality=95, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image), dtype=int)
    made = square_of(content, 16, 8, 100)
    assert (made == content) == (orientation == 1)
    with Image.open(io.BytesIO(made)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 3
    read = read_image(put(tmp_path / "turned.jpg", content), 16).transpose(1, 2, 0)
    assert np.array_equal(read, expected)


def test_a_damaged_exif_block_does_not_lose_the_photo():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(image_of(3), "JPEG", exif=exif)
    start = content.index(b"Exif\0\0") + 6
    for damaged in (b"\xff" * 8, b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08"):
        assert square_of(content[:start] + damaged + content[start + 8 :], 16, 8, 95)


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n(x) run\n%%EOF\n"


BAD = {
    "empty": (b"", "is no image"),
    "page": (b"<html></html>", "is no image"),
    "a program": (PROGRAM, "is no image"),  # EPS, which Pillow would hand to Ghostscript
    "half": (encoded(image_of(1, (64, 64)), "JPEG")[:900], "truncated"),
    "all but two bytes": (encoded(image_of(1), "JPEG")[:-2], "truncated"),
    "floats": (encoded(Image.fromarray(np.ones((16, 16), np.float32)), "TIFF"), "no known range"),
    "text bomb": (
        png_of(16, 16, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1)))] * 99),
        r"[Tt]oo (large|much)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_dropped_by_name(tmp_path, kind, caplog):
    content, reason = BAD[kind]
    source = class_folders(tmp_path / "in")
    put(source / "apple" / f"{kind}.JPG", content)
    manifest = prepared(source, tmp_path / "out")
    assert (manifest["counts"]["train"], list(dropped(manifest))) == (2, [f"apple/{kind}.JPG"])
    with pytest.raises(DataError, match=reason):
        square_of(content, 16, 8, 95)
    images = Folder(source, 16)
    with caplog.at_level(logging.WARNING):
        images.batch(range(3))
    assert list(images.broken) == [f"apple/{kind}.JPG"]
    assert caplog.text.count(f"{kind}.JPG") == 1
    assert f"apple/{kind}.JPG (" in check_folder(source).errors[0]


def test_what_is_copied_byte_for_byte_is_small(tmp_path):
    """A JPEG of the right size with a megabyte behind it is made anew: the set holds photos and nothing else."""
    content = encoded(image_of(3), "JPEG")
    assert square_of(content, 16, 8, 95) == content
    assert len(square_of(content + bytes(2**20), 16, 8, 95)) < 2000


def test_damaged_images_raise_nothing_but_data_errors():
    """Random bytes changed in images of nine kinds, 900 times."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    sound = [encoded(image_of(0), kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    sound += [encoded(image_of(0), kind) for kind in ("BMP", "GIF")]
    sound += [KINDS[kind][0] for kind in ("16 bit grey", "clear palette", "cmyk")]
    random = np.random.default_rng(1)
    refused = 0
    for content in sound:
        for _ in range(100):
            damaged = np.frombuffer(content, dtype=np.uint8).copy()
            places = random.integers(0, min(len(content), int(random.choice([64, 200, 10**6]))), random.integers(1, 5))
            damaged[places] = random.integers(0, 256, len(places))
            try:
                with opened(damaged.tobytes()) as image:
                    if image.width * image.height < 10**6:
                        as_rgb(image)
            except DataError:
                refused += 1
    assert 100 < refused < 900


@pytest.mark.parametrize("spoil", ["garbage", "another size", "empty", "pipe", "gone", "class gone"])
def test_a_file_replaced_while_training_is_skipped_by_name(tmp_path, spoil, caplog):
    """Another image of its class takes its place; the training goes on."""
    folder = class_folders(tmp_path / "in", ("apple", "bread"), 3)
    images = Folder(folder, 16)
    images.batch(range(6))
    path = folder / "apple" / "1.png"
    path.unlink()
    if spoil == "pipe":
        os.mkfifo(path)
    elif spoil == "class gone":
        shutil.rmtree(path.parent)
    elif spoil != "gone":
        path.write_bytes({"garbage": b"no", "another size": encoded(image_of(0, (20, 20))), "empty": b""}[spoil])
    pixels, labels = images.batch(range(6))
    assert len(pixels) == 6
    assert images.broken.keys() >= {"apple/1.png"}
    assert labels.tolist() == ([1] * 6 if spoil == "class gone" else [0, 0, 0, 1, 1, 1])
    assert caplog.text.count("apple/1.png") == 1


def test_the_file_of_a_pack_may_be_gone_once_it_is_made(tmp_path):
    folder = class_folders(tmp_path / "in", ("apple", "bread"), 3)
    images = Packed(folder, 16)
    (folder / "apple" / "1.png").write_bytes(b"")
    assert len(images.batch(range(6))[0]) == 6


@pytest.mark.parametrize("spoil", ["cut", "empty", "gone", "other shape", "labels"])
def test_a_damaged_pack_is_made_anew(tmp_path, spoil):
    folder = class_folders(tmp_path / "in", ("apple", "bread"), 3)
    expected = Packed(folder, 16).batch(range(6))[0]
    array, index = tmp_path / "in.packed" / "images.npy", tmp_path / "in.packed" / "index.json"
    if spoil == "labels":
        index.write_text(json.dumps(json.loads(index.read_text()) | {"labels": [0]}))
    elif spoil == "other shape":
        np.save(array, np.zeros((2, 3, 4, 4), np.uint8))
    elif spoil == "gone":
        array.unlink()
    else:
        array.write_bytes(array.read_bytes()[:-100] if spoil == "cut" else b"")
    assert np.array_equal(Packed(folder, 16).batch(range(6))[0], expected)

"""Images of a million pixels a side: refused from their header, by every reader."""

import struct
import subprocess
import sys
import zlib

import pytest

from foodgen.core.errors import DataError
from foodgen.data.folder import read_image
from foodgen.data.prepare import square_of
from tests.conftest import ROOT
from tests.faults.photos import class_folders, encoded, image_of, put

MILLION = 10**6


def png_of(width, height, *others):
    """A PNG of which the header alone is true, and other chunks."""
    chunks = [(b"IHDR", struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)), *others]
    chunks += [(b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")]
    parts = [(struct.pack(">L", len(data)), name + data) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(size + data + struct.pack(">L", zlib.crc32(data)) for size, data in parts)


def tiff_of(width, height):
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 9}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)


def jpeg_of(width, height):
    content = bytearray(encoded(image_of(0), "JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">2H", height, width)
    return bytes(content)


def gif_of(width, height):
    frame = b"," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x02L\x01\0;"
    return b"GIF89a" + struct.pack("<2H3B", width, height, 0x80, 0, 0) + bytes(6) + frame


def bmp_of(width, height):
    content = bytearray(encoded(image_of(0), "BMP"))
    content[18:26] = struct.pack("<2l", width, height)
    return bytes(content)


def webp_of(width, height):
    content = bytearray(encoded(image_of(0), "WEBP", lossless=True))
    start = content.index(b"VP8L") + 9
    old = int.from_bytes(content[start : start + 4], "little")
    content[start : start + 4] = (old >> 28 << 28 | (height - 1) << 14 | width - 1).to_bytes(4, "little")
    return bytes(content)


HUGE = {
    "png": png_of(MILLION, MILLION),
    "tiff": tiff_of(MILLION, MILLION),
    "jpeg": jpeg_of(65535, 65535),
    "gif": gif_of(65535, 65535),
    "bmp": bmp_of(MILLION, MILLION),
    "webp": webp_of(16384, 16384),
}


MEASURE = """
def peak():  # of this program alone: getrusage's begins with the parent's
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
import sys, time
from pathlib import Path
from foodgen.data.checking import check_folder
from foodgen.data.folder import Folder
from foodgen.data.packed import Packed
from foodgen.data.prepare import prepare
work = Path(sys.argv[1])
prepare(str(work / "sound"), work / "first", 16, 8, 0, 0, 95, 0)
check_folder(work / "sound", 16)
before, start = peak(), time.monotonic()
drops = prepare(str(work / "in"), work / "out", 16, 8, 0, 0, 95, 0)["dropped"]
errors = check_folder(work / "in", 16).errors
images = Folder(work / "in", 16)
images.batch(range(len(images)))
seconds = time.monotonic() - start
print(peak() - before, seconds, len(drops), len(images.broken))
print(errors[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_an_image_of_a_million_by_a_million_pixels_is_refused_from_its_header(tmp_path):
    """By the preparation, the check and a training, in little memory and time, in every format."""
    class_folders(tmp_path / "sound")
    class_folders(tmp_path / "in")
    for name, content in HUGE.items():
        put(tmp_path / "in" / "apple" / f"{name}.jpg", content)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    megabytes, seconds, drops, broken = map(float, first.split())
    assert (drops, broken) == (len(HUGE), len(HUGE))
    assert second.startswith(f"{len(HUGE)} files cannot be read: ")
    assert megabytes < 30
    assert seconds < 3


@pytest.mark.parametrize("kind", HUGE)
def test_every_reader_refuses_huge_images_alike(tmp_path, kind):
    path = put(tmp_path / "huge.jpg", HUGE[kind])
    for read in (lambda: square_of(HUGE[kind], 16, 8, 95), lambda: read_image(path, 16)):
        with pytest.raises(DataError, match=r"pixels\) exceeds limit of"):
            read()


def test_an_image_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    path = put(tmp_path / "large.png", png_of(12000, 12000))  # decoding it would say that it is truncated
    with pytest.raises(DataError, match=r"large\.png: is 12000x12000 pixels, not 16x16"):
        read_image(path, 16)

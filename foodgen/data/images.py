"""Image files: those below a folder, and what is read of one, within bounds."""

import errno
import io
import logging
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from foodgen.core.errors import DataError
from foodgen.data.names import shown

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# whatever the ending says; Pillow knows others, of which it hands EPS to a program
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
UNREADABLE = (  # all that Pillow raises for bad files
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError),
    Image.DecompressionBombError,  # from the header, before anything is decoded
)
TURNS = {  # by EXIF's number for the orientation
    **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM},
    **{5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE},
    8: Image.Transpose.ROTATE_90,
}
MOST_BYTES = 2**27  # of an image's file
LARGE = 2**24  # pixels of an image that is decoded while no other such is
log = logging.getLogger("foodgen")
_one_large = Lock()


def files_below(folder: Path, tell: bool = True) -> list[Path]:
    """All below a folder that is no folder, in sorted order.

    Links to folders are not followed, so that they cannot lead in circles, but told. Raises DataError for a folder that
    cannot be read.
    """
    folders, found = [folder], []
    while folders:
        for path, is_folder in _entries(folders.pop()):
            if not is_folder:
                found.append(path)
            elif not path.is_symlink():
                folders.append(path)
            elif tell:
                log.warning("%s is a link to a folder; it is not followed", shown(str(path)))
    return sorted(found)


def folders_in(folder: Path) -> list[Path]:
    """The folders right below, links to such included. Raises DataError if it cannot be read."""
    return [path for path, is_folder in _entries(folder) if is_folder]


def mode_of(path: Path) -> int:
    """What is at a path, for stat.S_ISDIR and the like; 0 for nothing, as for links that lead nowhere or in circles.

    Raises DataError if it may not be known.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        if error.errno == errno.ELOOP:
            return 0
        raise DataError(f"{shown(str(path))}: cannot be read ({error.strerror})") from None


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """What a folder holds, and whether it is a folder or leads to one."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries]
    except OSError as error:
        raise DataError(f"{shown(str(folder))}: cannot be read ({error.strerror})") from None
    return [(path, stat.S_ISDIR(mode_of(path))) for path in found]


def content_of(path: Path) -> bytes:
    """The bytes of an image's file. Raises DataError, for a pipe or a device too, which would be waited for."""
    try:
        _check_file(path)
        return path.read_bytes()
    except OSError as error:
        raise DataError(error.strerror or type(error).__name__) from None


def _check_file(path: Path) -> None:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise DataError("is no ordinary file")
    if state.st_size > MOST_BYTES:
        raise DataError(f"its {state.st_size / 1e6:.0f} MB are more than the {MOST_BYTES / 1e6:.0f} MB of an image")


@contextmanager
def opened(source: Path | bytes) -> Iterator[Image.Image]:
    """An image, of which the header has been read. Raises DataError for it, and for what is decoded in the block."""
    try:
        if isinstance(source, Path):
            _check_file(source)
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
            with _one_large if image.width * image.height > LARGE else nullcontext():
                yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("is no image") from None
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(shown(reason) or type(error).__name__) from None


def orientation(image: Image.Image) -> int:
    """How EXIF says that the image must be turned; 1, as it is, where that is missing or damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (*UNREADABLE, TypeError):
        return 1


def as_rgb(image: Image.Image) -> Image.Image:
    """In mode RGB: upright, transparent parts white, 16 bits as 8. Of moving images it is the first one.

    Raises DataError for numbers without a range.
    """
    turn = TURNS.get(orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if upright.mode in ("I", "F"):
        raise DataError(f"its numbers, mode {upright.mode}, have no known range")
    if upright.mode.startswith("I;16"):  # Pillow would make white of all but the darkest
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
    return upright.convert("RGB")

"""Photos in zip archives, which may be damaged or meant to do harm."""

import re
import stat
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from foodgen.core.errors import DataError
from foodgen.data.images import MOST_BYTES
from foodgen.data.names import shorter, shown
from foodgen.data.photos import Photo, place_of

RATIO = 100  # unpacked bytes to packed ones: photos are about 1
SMALL, SMALL_SUM = 2**20, 2**26  # bytes of a member, and of all, at which the ratio does not matter
PIECE = 2**16  # bytes unpacked at a time: a member may hold more than it says
BROKEN = (BadZipFile, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error)


def photos_in_zip(path: Path) -> Iterator[Photo]:
    """The photos of an archive, by their names in it; a drive or a slash in front of a name is left out.

    Raises DataError for no zip, for names that lead out of it, and for one that unpacks to absurdly much.
    """
    try:
        archive = ZipFile(path)
        size = path.stat().st_size
    except BROKEN as error:
        raise DataError(f"source: {path}: {shown(str(error)) or type(error).__name__}") from None
    total = 0
    for member in archive.infolist():
        parts = [part for part in re.split(r"[/\\]", member.filename) if part and not re.fullmatch(r"[A-Za-z]:", part)]
        if ".." in parts:
            raise DataError(f"source: {path}: the name '{shorter(member.filename)}' leads out of the archive")
        place = place_of(parts[parts.index("images") + 1 :] if "images" in parts else parts)
        if place is None or member.is_dir():
            continue
        total += 0 if _refusal(member) else member.file_size
        if total > max(SMALL_SUM, RATIO * size):
            raise DataError(
                f"source: {path}: unpacks to more than {RATIO} times its {size / 1e6:.1f} MB, as no photos do"
            )
        yield Photo(*place, origin=shown(member.filename), read=partial(_read, archive, member))


def _refusal(member: ZipInfo) -> str | None:
    """Why a member is not unpacked at all."""
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "a link in an archive"
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile unpacks other methods without a bound
        return "compressed by another method than deflate"
    if member.file_size > MOST_BYTES:
        return f"its {member.file_size / 1e6:.0f} MB are more than an image has"
    if member.file_size > max(SMALL, RATIO * member.compress_size):
        return f"unpacks to more than {RATIO} times its size, as no photo does"
    return None


def _read(archive: ZipFile, member: ZipInfo) -> bytes:
    """The bytes of a member. Raises DataError."""
    refusal = _refusal(member)
    if refusal:
        raise DataError(refusal)
    try:
        with archive.open(member) as file:
            return b"".join(iter(partial(file.read, PIECE), b""))
    except BROKEN as error:  # damaged or encrypted
        raise DataError(f"{shown(str(error)) or type(error).__name__}") from None

"""Where photos come from: folders, zips, Food-101's archive; each a class, a name and bytes on demand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from foodgen.core.errors import DataError
from foodgen.data.folder import ENDINGS

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Photo:
    """One photo of the source: its class, its name, where it came from, and its bytes on demand."""

    split: str | None
    label: str
    name: str
    origin: str
    read: Callable[[], bytes]


def find_photos(source: str, target: Path) -> list[Photo]:
    """The photos of a source, in the order of their class, name and origin. Raises DataError."""
    if source == "food101":
        source = str(_download(target.parent))
    path = Path(source)
    if path.is_file():
        zips = [path]
    elif path.is_dir():
        zips = sorted(path.glob("*.zip"))
    else:
        raise DataError(f"source: {path} is neither a folder nor a zip")
    photos = [photo for archive in zips for photo in _in_zip(archive)] if zips else list(_in_folder(path))
    if not photos:
        raise DataError(f"source: {path} holds no images in class folders")
    return _distinct(sorted(photos, key=lambda photo: (photo.label, photo.name, photo.origin)))


def _distinct(photos: list[Photo]) -> list[Photo]:
    """The photos, those of one class and name told apart by a number: a.jpg and a.png, or a.jpg of two zips."""
    taken: set[tuple[bool, str, str]] = set()
    distinct = []
    for photo in photos:
        name, number = photo.name, 1
        while (photo.split == TEST, photo.label, name) in taken:
            number += 1
            name = f"{photo.name}-{number}"
        taken.add((photo.split == TEST, photo.label, name))
        distinct.append(replace(photo, name=name))
    return distinct


def _in_folder(folder: Path) -> Iterator[Photo]:
    """Photos below a folder; of Food-101's archive, those below its images/."""
    if (folder / "images").is_dir() and (folder / "meta").is_dir():
        folder = folder / "images"
    for path in sorted(folder.rglob("*")):
        place = _place(path.relative_to(folder).parts)
        if place and path.is_file():
            yield Photo(*place, origin=path.relative_to(folder).as_posix(), read=path.read_bytes)


def _in_zip(path: Path) -> Iterator[Photo]:
    try:
        archive = ZipFile(path)
    except (BadZipFile, OSError) as error:
        raise DataError(f"source: {path}: {error}") from None
    for name in archive.namelist():
        parts = PurePosixPath(name).parts
        place = _place(parts[parts.index("images") + 1 :] if "images" in parts else parts)
        if place and not name.endswith("/"):
            yield Photo(*place, origin=name, read=lambda name=name: archive.read(name))  # type: ignore[misc]


def _place(parts: tuple[str, ...]) -> tuple[str | None, str, str] | None:
    """Split, class and name of [train/|test/]<class>/<name>.<ending>, or None for anything else."""
    if len(parts) < 2 or any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    if Path(parts[-1]).suffix.lower() not in ENDINGS:
        return None
    split = parts[-3] if len(parts) > 2 and parts[-3] in (TRAIN, TEST) else None
    return split, parts[-2], Path(parts[-1]).stem


def _download(folder: Path) -> Path:
    from torchvision.datasets import Food101

    try:
        Food101(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"source: Food-101 cannot be downloaded ({error}); give the path of a copy") from None
    return folder / "food-101"

"""Where photos come from: folders, zips, Food-101's archive; each a class, a name and bytes on demand."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from foodgen.core.errors import DataError
from foodgen.core.locations import HUB
from foodgen.data.images import content_of, files_below, mode_of
from foodgen.data.names import as_one, check_class, shorter, shown
from foodgen.data.parquet import photos_in_parquet
from foodgen.data.photos import TEST, Photo, place_of
from foodgen.data.zips import photos_in_zip


def find_photos(source: str, target: Path) -> list[Photo]:
    """The photos of a source, in the order of their class, name and origin. Raises DataError."""
    if source == "food101":
        source = str(_download(target.parent))
    path = _of_hub(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source)
    try:
        photos = sorted(_photos_at(path, target), key=lambda photo: (photo.label, photo.name, photo.origin))
        for label in {photo.label for photo in photos}:
            check_class(label)
    except DataError as error:
        raise DataError(f"source: {str(error).removeprefix('source: ')}") from None
    if not photos:
        raise DataError(f"source: {path} holds no images in class folders")
    return _distinct(photos)


def _photos_at(path: Path, target: Path) -> Iterator[Photo]:
    """The photos of a folder or a file. Raises DataError."""
    mode = mode_of(path)
    if stat.S_ISDIR(mode):
        if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(path)):
            raise DataError(f"{path} holds the target, {target}, whose files would be taken for photos of the source")
        below = files_below(path)
        files = [file for file in below if file.suffix == ".parquet"]
        files = files or [file for file in below if file.suffix == ".zip" and file.parent == path]
    elif stat.S_ISREG(mode):
        below, files = [], [path]
    else:
        raise DataError(f"{path} is neither a folder nor a zip nor a parquet file")
    if files and files[0].suffix == ".parquet":
        yield from photos_in_parquet(files)
    elif files:
        for archive in files:
            yield from photos_in_zip(archive)
    else:
        yield from _in_folder(path, below)


def _distinct(photos: list[Photo]) -> list[Photo]:
    """The photos, those of one class and name told apart by a number: a.jpg and a.png, or a.jpg of two zips.

    Names that differ in case or Unicode form alone are one where a file system takes them for one.
    """
    taken: set[tuple[bool, str, str]] = set()
    distinct = []
    for photo in photos:
        name, number = photo.name, 1
        while (photo.split == TEST, photo.label, as_one(name)) in taken:
            number += 1
            name = f"{photo.name}-{number}"
        taken.add((photo.split == TEST, photo.label, as_one(name)))
        distinct.append(replace(photo, name=name))
    return distinct


def _in_folder(folder: Path, files: Sequence[Path]) -> Iterator[Photo]:
    """Photos of a folder's files; of Food-101's archive, those below its images/."""
    if all(stat.S_ISDIR(mode_of(folder / name)) for name in ("images", "meta")):
        folder = folder / "images"
    for path in files:
        if path.is_relative_to(folder):
            inside = path.relative_to(folder)
            place = place_of(inside.parts)
            if place:
                yield Photo(*place, origin=shown(inside.as_posix()), read=partial(content_of, path))


def _of_hub(name: str) -> Path:
    """A folder with the parquet files of a data set of the Hugging Face hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet", "**/*.parquet"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise DataError(f"source: {HUB}{shorter(name)} cannot be downloaded ({shorter(str(error), 200)})") from None


def _download(folder: Path) -> Path:
    from torchvision.datasets import Food101

    try:
        Food101(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"source: Food-101 cannot be downloaded ({error}); give the path of a copy") from None
    return folder / "food-101"

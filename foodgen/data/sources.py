"""Where photos come from: folders, zips, Food-101's archive; each a class, a name and bytes on demand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from foodgen.core.errors import DataError
from foodgen.core.locations import HUB
from foodgen.data.folder import ENDINGS
from foodgen.data.parquet import photos_in_parquet
from foodgen.data.photos import TEST, TRAIN, Photo


def find_photos(source: str, target: Path) -> list[Photo]:
    """The photos of a source, in the order of their class, name and origin. Raises DataError."""
    if source == "food101":
        source = str(_download(target.parent))
    path = _of_hub(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source)
    if not path.exists():
        raise DataError(f"source: {path} is neither a folder nor a zip nor a parquet file")
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet")) or sorted(path.glob("*.zip"))
    if files and files[0].suffix == ".parquet":
        photos = list(photos_in_parquet(files))
    else:
        photos = [photo for archive in files for photo in _in_zip(archive)] if files else list(_in_folder(path))
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


def _of_hub(name: str) -> Path:
    """A folder with the parquet files of a data set of the Hugging Face hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet", "**/*.parquet"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise DataError(f"source: {HUB}{name} cannot be downloaded ({str(error).splitlines()[0]})") from None


def _download(folder: Path) -> Path:
    from torchvision.datasets import Food101

    try:
        Food101(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"source: Food-101 cannot be downloaded ({error}); give the path of a copy") from None
    return folder / "food-101"

"""Class folders of images: <folder>/<class>/<image>, read file by file."""

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foodgen.core.errors import DataError
from foodgen.core.registry import datasets
from foodgen.data.images import ENDINGS, as_rgb, files_below, folders_in, mode_of, opened
from foodgen.data.names import check_class, shown, twins

log = logging.getLogger("foodgen")


@dataclass
class Listing:
    """What a folder holds: class names in sorted order, files relative to it, and their class numbers."""

    folder: Path
    classes: list[str]
    files: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def digest(self) -> str:
        """A hash of names, sizes and dates: it changes when a file is added, removed or replaced."""
        whole = hashlib.sha256(repr(self.classes).encode())
        for name in self.files:
            try:
                state = (self.folder / name).stat()
                whole.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
            except OSError:  # a dangling link, say: reading names it
                whole.update(f"{name}\0unreadable\n".encode(errors="surrogateescape"))
        return whole.hexdigest()


def list_folder(folder: Path) -> Listing:
    """All images below the class folders, in sorted order. Raises DataError if there are none."""
    if not stat.S_ISDIR(mode_of(folder)):
        raise DataError(f"{folder}: there is no such folder")
    classes = sorted(path.name for path in folders_in(folder) if not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: holds no class folders; images are expected in {folder}/<class>/")
    for name in classes:
        try:
            check_class(name)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(folder / name)):
            raise DataError(f"{folder / name}: is a link to the folder that it is in")
    for first, second in twins(classes):
        log.warning("%s: the classes %s and %s differ in case or Unicode form alone", folder, first, second)
    listing = Listing(folder, classes)
    for label, name in enumerate(classes):
        paths = [path for path in files_below(folder / name) if is_image(path)]
        if not paths:
            log.warning("%s: class %s holds no images", folder, name)
        listing.files += [path.relative_to(folder).as_posix() for path in paths]
        listing.labels += [label] * len(paths)
    if not listing.files:
        raise DataError(f"{folder}: its class folders hold no images ({', '.join(sorted(ENDINGS))})")
    return listing


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def read_image(path: Path, size: int) -> np.ndarray:
    """Pixels of an RGB image, uint8 (3, size, size). Raises DataError if it cannot be read or has another size."""
    try:
        with opened(path) as image:
            if image.size != (size, size):  # known before anything is decoded
                raise DataError(
                    f"is {image.width}x{image.height} pixels, not {size}x{size}; prepare_data.py makes such sets"
                )
            pixels = np.asarray(as_rgb(image))
    except DataError as error:
        raise DataError(f"{shown(str(path))}: {error}") from None
    return pixels.transpose(2, 0, 1)


@datasets.add_to_registry(name="folder")
class Folder:
    """Images read from their files whenever they are asked for.

    A broken image is named once and replaced by the next readable one of its class.
    More than `limit()` of them raise DataError.

    folder      holds the class folders
    image_size  pixels a side that every image must have
    """

    def __init__(self, folder: Path, image_size: int) -> None:
        self.listing = list_folder(folder)
        self.image_size = image_size
        self.classes, self.labels = self.listing.classes, self.listing.labels
        self.broken: dict[str, str] = {}
        read_first(self)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image, uint8 (3, size, size), and its class number."""
        for candidate in self._candidates(index):
            name = self.listing.files[candidate]
            if name in self.broken:
                continue
            try:
                pixels = read_image(self.listing.folder / name, self.image_size)
            except DataError as error:
                self.note_broken(name, str(error))
                continue
            return torch.from_numpy(np.ascontiguousarray(pixels)), self.labels[candidate]
        raise DataError(f"{self.listing.folder}: no image can be read")

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images, uint8 (batch, 3, size, size), and class numbers, (batch,)."""
        images, labels = zip(*(self[int(index)] for index in indices), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def limit(self) -> int:
        """How many broken images are borne."""
        return max(10, len(self) // 100)

    def note_broken(self, name: str, reason: str) -> None:
        """Count and name a broken image. Raises DataError past the limit."""
        self.broken[name] = reason
        log.warning("skipped: %s", reason)
        if len(self.broken) > self.limit():
            raise DataError(f"more than {self.limit()} broken images, the last: {reason}")

    def _candidates(self, index: int) -> Iterator[int]:
        """The image itself, the others of its class after it, then all others."""
        yield index
        turned = [*range(index + 1, len(self)), *range(index)]
        yield from sorted(turned, key=lambda other: self.labels[other] != self.labels[index])


def read_first(images: Folder) -> None:
    """Read one image now: a set of the wrong size fails before any long work."""
    first = images.listing.folder / images.listing.files[0]
    try:
        with opened(first) as image:
            readable = image.size
    except DataError:
        return  # one broken file is borne; the reading names it
    if readable != (images.image_size, images.image_size):
        read_image(first, images.image_size)

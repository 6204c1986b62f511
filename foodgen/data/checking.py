"""What is wrong with a folder of photos, found before anything is trained on it."""

import hashlib
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foodgen.core.errors import DataError
from foodgen.data.folder import list_folder
from foodgen.data.images import as_rgb, files_below, mode_of, opened
from foodgen.data.names import shown, twins

SPLITS = ("train", "val", "test")
SHOWN = 5  # examples of a finding
FEW = 20  # images of a class, below which a warning says so


@dataclass
class Split:
    """A tree of class folders: its images by class and by size, and what cannot be used.

    broken     files and reasons
    strays     files that are no images, or in no class folder
    originals  a hash of the pixels to the file that had them first
    copies     pairs of files with the same pixels
    """

    name: str
    per_class: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    originals: dict[str, str] = field(default_factory=dict)
    copies: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Check:
    """The splits of a folder, what must be mended (errors), and what should be known (warnings)."""

    splits: list[Split]
    errors: list[str]
    warnings: list[str]

    def __str__(self) -> str:
        lines = [line for split in self.splits for line in _described(split)]
        lines += [f"warning: {text}" for text in self.warnings] + [f"error: {text}" for text in self.errors]
        return "\n".join([*lines, "this folder can be trained on" if not self.errors else "mend the errors first"])


def check_folder(folder: Path, image_size: int | None = None) -> Check:
    """Look at every image of `folder`, or of its train/, val/ and test/.

    image_size  that all images must have; None where prepare_data.py is still to come

    Raises DataError if there are no images.
    """
    named = [name for name in SPLITS if stat.S_ISDIR(mode_of(folder / name))]
    splits = [_look(folder / name, name) for name in named] or [_look(folder, "")]
    errors, warnings = [], []
    for split in splits:
        place = f"{split.name}: " if split.name else ""
        wrong = sum(count for size, count in split.sizes.items() if image_size and size != (image_size, image_size))
        if wrong:
            errors.append(f"{place}{wrong} images are not {image_size}x{image_size}; prepare_data.py makes such sets")
        if split.broken:
            errors.append(f"{place}{len(split.broken)} files cannot be read: {_examples(split.broken)}")
        empty = [name for name, count in split.per_class.items() if count == 0]
        few = [f"{name} ({count})" for name, count in split.per_class.items() if 0 < count < FEW]
        if empty:
            errors.append(f"{place}{len(empty)} classes are empty: {_examples(empty)}")
        if few and split.name in ("", "train"):
            warnings.append(f"{place}{len(few)} classes have fewer than {FEW} images: {_examples(few)}")
        if split.strays:
            warnings.append(f"{place}{len(split.strays)} files are not used: {_examples(split.strays)}")
        for first, second in twins(split.per_class):
            warnings.append(f"{place}the classes {first} and {second} differ in case or Unicode form alone")
        if split.copies:
            pairs = [f"{copy} = {original}" for original, copy in split.copies]
            warnings.append(f"{place}{len(pairs)} images are there twice: {_examples(pairs)}")
    errors += _between(splits)
    return Check(splits, errors, warnings)


def _between(splits: Sequence[Split]) -> Iterator[str]:
    """What splits must not have in common, and what they must."""
    for index, first in enumerate(splits):
        for second in splits[index + 1 :]:
            shared = sorted(first.originals.keys() & second.originals.keys())
            pairs = [f"{second.name}/{second.originals[key]} = {first.name}/{first.originals[key]}" for key in shared]
            if pairs:
                yield f"{len(pairs)} images are in {first.name} and in {second.name}: {_examples(pairs)}"
            differing = sorted(set(first.per_class) ^ set(second.per_class))
            if differing:
                yield f"{first.name} and {second.name} have other classes: {_examples(differing)}"


def _look(folder: Path, name: str) -> Split:
    listing = list_folder(folder)
    split = Split(name, Counter(dict.fromkeys(listing.classes, 0)))
    listed = set(listing.files)
    seen = [path for path in files_below(folder, tell=False) if not path.name.startswith(".")]
    others = (path.relative_to(folder).as_posix() for path in seen)
    split.strays = [shown(path) for path in others if path not in listed]
    for name, label in zip(listing.files, listing.labels, strict=True):
        file = shown(name)
        try:
            with opened(folder / name) as image:
                pixels = np.asarray(as_rgb(image))
                split.modes[image.mode] += 1
        except DataError as error:
            split.broken.append(f"{file} ({error})")
            continue
        split.per_class[listing.classes[label]] += 1
        split.sizes[pixels.shape[1], pixels.shape[0]] += 1
        whole = hashlib.sha256(repr(pixels.shape).encode())
        whole.update(np.ascontiguousarray(pixels).data)
        key = whole.hexdigest()
        original = split.originals.setdefault(key, file)
        if original != file:
            split.copies.append((original, file))
    if not split.sizes:
        raise DataError(f"{folder}: none of its {len(listing.files)} images can be read")
    return split


def _described(split: Split) -> Iterator[str]:
    counts = split.per_class.values()
    whole = f"{sum(counts)} images of {len(counts)} classes"
    yield f"{split.name or 'images'}: {whole}, {min(counts)} to {max(counts)} each"
    sizes = [f"{width}x{height} ({count})" for (width, height), count in split.sizes.most_common(3)]
    yield f"  sizes: {', '.join(sizes)}{f' and {len(split.sizes) - 3} others' if len(split.sizes) > 3 else ''}"
    if set(split.modes) - {"RGB"}:
        yield f"  modes: {', '.join(f'{mode} ({count})' for mode, count in split.modes.most_common())}, read as RGB"


def _examples(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")

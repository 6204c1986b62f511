"""From photos of any size to a set of small squares: train, a held-out slice of it, and test."""

import hashlib
import io
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from tqdm import tqdm

from foodgen.core.errors import DataError
from foodgen.core.files import atomic
from foodgen.core.randomness import seed_of
from foodgen.core.registry import suggestion
from foodgen.data.images import as_rgb, opened, orientation
from foodgen.data.names import twins
from foodgen.data.photos import TEST, TRAIN, Photo
from foodgen.data.sources import find_photos

log = logging.getLogger("foodgen")
MANIFEST = "prepare.json"
MOST_ADDED = 2**16  # bytes of texts and profiles in a photo that is copied as it is
VAL = "val"


@dataclass(frozen=True)
class Square:
    """A prepared photo: what its file will hold, or why it is dropped."""

    photo: Photo
    content: bytes = b""
    dropped: str | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def prepare(
    source: str,
    target: Path,
    image_size: int,
    smallest: int,
    test_per_class: int,
    val_per_class: int,
    quality: int,
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write <target>/{train,val,test}/<class>/<name>.jpg and the manifest, which is returned.

    source              Food-101's archive layout, a class-folder tree, a tree with train/ and test/,
                        a zip or a folder of zips of these, or "food101" to download it
    image_size          pixels a side of the squares
    smallest            photos with a shorter side are dropped
    test_per_class      photos held back for test, unless the source has a test/ of its own
    val_per_class  training photos set apart for choosing settings
    quality             of JPEGs that are made; JPEGs of the right size are copied byte for byte
    seed                of the choice of test and held-out photos
    classes             the only ones to take, all if not given

    An interrupted run is taken up again. Raises DataError for a source without photos, or a target
    that was made otherwise.
    """
    settings = {name: value for name, value in locals().items() if name != "target" and value is not None}
    done = _earlier(target, settings)
    if done is not None:
        return done
    photos = _of_classes(find_photos(source, target), classes)
    for first, second in twins({photo.label for photo in photos}):
        raise DataError(
            f"source: the classes '{first}' and '{second}' differ in case or Unicode form alone, and some file systems "
            f"take them for one; rename or merge them, or name those to take in classes"
        )
    given = any(photo.split == TEST for photo in photos)
    if not given:
        photos = choose(photos, TEST, test_per_class, seed)
        log.warning(
            "%s has no test/ of its own: test/ is %d photos a class drawn at random. FIDs against it compare with "
            "each other, and not with those of a source that brings its test photos",
            *(source, test_per_class),
        )
    _write_manifest(target, {"settings": settings, "finished": False})
    try:
        squares = _squares(photos, image_size, smallest, quality)
        _check_used(squares)
        tests = [square for square in squares if square.photo.split == TEST]
        known = {square.digest: square.photo.origin for square in tests if not square.dropped}
        rest = [_drop_copy(square, known) for square in squares if square.photo.split != TEST]
        held = _choose_val(rest, val_per_class, seed)
    except DataError:
        _leave_nothing(target)
        raise
    counter = _Writer(target)
    counter.write(TEST, tests)
    counter.write(VAL, [square for square in rest if square.photo in held])
    counter.write(TRAIN, [square for square in rest if square.photo not in held])
    manifest = {"settings": settings, "finished": True, **counter.summary()}
    _write_manifest(target, manifest)
    return manifest


def _of_classes(photos: list[Photo], classes: Sequence[str] | None) -> list[Photo]:
    known = {photo.label for photo in photos}
    for name in classes or []:
        if name not in known:
            raise DataError(f"classes: the source has no class '{name}'; {suggestion(name, known)}")
    return photos if classes is None else [photo for photo in photos if photo.label in classes]


def choose(photos: list[Photo], split: str, per_class: int, seed: int) -> list[Photo]:
    """The photos, `per_class` of each class moved to `split`, the same ones whenever the seed is."""
    chosen = _pick(photos, per_class, seed, split)
    return [replace(photo, split=split if photo in chosen else TRAIN) for photo in photos]


def square_of(content: bytes, image_size: int, smallest: int, quality: int) -> bytes:
    """JPEG bytes of the photo's middle square at `image_size`; a fitting JPEG as it is.

    Raises DataError for a photo that cannot be read or is too small.
    """
    try:
        with opened(content) as image:
            fits = image.format == "JPEG" and image.mode == "RGB" and image.size == (image_size, image_size)
            small = min(image.size) < smallest and not fits
            if not small:
                image.load()
                if fits and len(content) <= MOST_ADDED + 6 * image_size**2 and orientation(image) == 1:
                    return content
                cut = ImageOps.fit(as_rgb(image), (image_size, image_size), method=Image.Resampling.LANCZOS)
    except DataError as error:
        raise DataError(f"unreadable: {error}") from None
    if small:
        raise DataError(f"too small: {image.width}x{image.height}")
    whole = io.BytesIO()
    cut.save(whole, "JPEG", quality=quality, subsampling=0)
    return whole.getvalue()


def _squares(photos: list[Photo], image_size: int, smallest: int, quality: int) -> list[Square]:
    """The squares of photos, in their order."""

    def make(photo: Photo) -> Square:
        try:
            content = photo.read()
        except DataError as error:
            return Square(photo, dropped=f"unreadable: {error}")
        try:
            return Square(photo, square_of(content, image_size, smallest, quality))
        except DataError as error:
            return Square(photo, dropped=str(error))

    order = sorted(range(len(photos)), key=lambda index: photos[index].place)
    with ThreadPoolExecutor() as pool:
        made = pool.map(make, (photos[index] for index in order))
        squares = dict(zip(order, tqdm(made, total=len(photos), desc="reading photos", disable=None), strict=True))
    return [squares[index] for index in range(len(photos))]


def _check_used(squares: Sequence[Square]) -> None:
    """Warn of classes of which no photo can be used. Raises DataError if none can be of any."""
    used = {square.photo.label for square in squares if not square.dropped}
    for label in sorted({square.photo.label for square in squares} - used):
        log.warning("class %s: none of its photos can be used", label)
    if not used:
        first = f"{squares[0].photo.origin} ({squares[0].dropped})"
        raise DataError(f"source: none of its {len(squares)} photos can be used, the first: {first}")


def _drop_copy(square: Square, known: dict[str, str]) -> Square:
    """The square, or its note of dropping if a test photo is identical."""
    if square.dropped or square.digest not in known:
        return square
    return Square(square.photo, dropped=f"identical to the test photo {known[square.digest]}")


def _choose_val(squares: list[Square], per_class: int, seed: int) -> set[Photo]:
    """Photos of the held-out slice: only such as occur once, so that none is trained on as well."""
    times = Counter(square.digest for square in squares if not square.dropped)
    single = [square.photo for square in squares if not square.dropped and times[square.digest] == 1]
    return _pick(single, per_class, seed, VAL)


def _pick(photos: Iterable[Photo], per_class: int, seed: int, purpose: str) -> set[Photo]:
    of_class = defaultdict(list)
    for photo in photos:
        of_class[photo.label].append(photo)
    chosen: set[Photo] = set()
    for label, members in of_class.items():
        if per_class and len(members) <= per_class:
            raise DataError(f"class {label} has {len(members)} photos, too few to hold {per_class} back for {purpose}")
        chosen.update(random.Random(seed_of(seed, purpose, label)).sample(members, per_class))
    return chosen


class _Writer:
    """Writes squares into class folders, each file whole or not at all, and keeps count."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.counts: dict[str, Counter[str]] = {}
        self.hashes: dict[str, str] = {}
        self.drops: list[dict[str, str]] = []

    def write(self, split: str, squares: list[Square]) -> None:
        self.counts[split] = Counter()
        whole = hashlib.sha256()
        for square in squares:
            if square.dropped:
                self.drops.append({"photo": square.photo.origin, "reason": square.dropped})
                continue
            path = self.target / split / square.photo.label / f"{square.photo.name}.jpg"
            whole.update(f"{square.photo.label}/{square.photo.name} {square.digest}\n".encode())
            self.counts[split][square.photo.label] += 1
            if not path.exists() or path.stat().st_size != len(square.content):
                _write_whole(path, square.content)
        self.hashes[split] = whole.hexdigest()

    def summary(self) -> dict[str, Any]:
        return {
            "counts": {split: sum(counts.values()) for split, counts in self.counts.items()},
            "classes": sorted({label for counts in self.counts.values() for label in counts}),
            "per_class": {split: dict(sorted(counts.items())) for split, counts in self.counts.items()},
            "hashes": self.hashes,
            "dropped": self.drops,
        }


def _earlier(target: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of a finished earlier run with these settings. Raises DataError for other settings."""
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
    except (ValueError, RecursionError):
        manifest = None
    except OSError:
        if _holds_files(target):
            raise DataError(f"target: {target} holds files that prepare_data.py did not make") from None
        return None
    if not isinstance(manifest, dict):
        raise DataError(f"target: {target / MANIFEST} is damaged; choose another target")
    if manifest.get("settings") != settings:
        raise DataError(f"target: {target} was made with other settings: {manifest.get('settings')}")
    return manifest if manifest.get("finished") else None


def _holds_files(target: Path) -> bool:
    """Whether anything is in the target. Raises DataError if it is no folder or may not be read."""
    try:
        return any(target.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"target: {target} cannot be used ({error.strerror})") from None


def _leave_nothing(target: Path) -> None:
    """Remove the target if it holds the manifest of this run alone."""
    if [path.name for path in target.iterdir()] == [MANIFEST]:
        (target / MANIFEST).unlink()
        target.rmdir()


def _write_manifest(target: Path, manifest: dict[str, Any]) -> None:
    _write_whole(target / MANIFEST, json.dumps(manifest, indent=1).encode())


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises DataError."""
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"target: {path} cannot be written ({error})") from None

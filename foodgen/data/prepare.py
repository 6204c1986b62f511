"""From photos of any size to a set of small squares: train, a held-out slice of it, and test."""

import hashlib
import io
import json
import logging
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from PIL import Image, ImageOps
from tqdm import tqdm

from foodgen.core.errors import DataError
from foodgen.core.files import atomic
from foodgen.core.randomness import seed_of
from foodgen.core.registry import suggestion
from foodgen.data.folder import UNREADABLE
from foodgen.data.sources import TEST, TRAIN, Photo, find_photos

log = logging.getLogger("foodgen")
MANIFEST = "prepare.json"
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
    given = any(photo.split == TEST for photo in photos)
    if not given:
        photos = choose(photos, TEST, test_per_class, seed)
        log.warning(
            "%s has no test/ of its own: test/ is %d photos a class drawn at random. FIDs against it compare with "
            "each other, and not with those of a source that brings its test photos",
            *(source, test_per_class),
        )
    _write_manifest(target, {"settings": settings, "finished": False})
    counter = _Writer(target)
    squares = _squares(photos, image_size, smallest, quality)
    tests: list[Square] = []
    rest: list[Square] = []
    for square in squares:
        (tests if square.photo.split == TEST else rest).append(square)
    counter.write(TEST, tests)
    known = {square.digest: square.photo.origin for square in tests if not square.dropped}
    rest = [_drop_copy(square, known) for square in rest]
    held = _choose_val(rest, val_per_class, seed)
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
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            fits = image.format == "JPEG" and image.mode == "RGB" and image.size == (image_size, image_size)
            if fits:
                return content
            if min(image.size) < smallest:
                raise DataError(f"too small: {image.width}x{image.height}")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            cut = ImageOps.fit(upright.convert("RGB"), (image_size, image_size), method=Image.Resampling.LANCZOS)
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"unreadable: {str(error) or type(error).__name__}") from None
    whole = io.BytesIO()
    cut.save(whole, "JPEG", quality=quality, subsampling=0)
    return whole.getvalue()


def _squares(photos: list[Photo], image_size: int, smallest: int, quality: int) -> list[Square]:
    """The squares of photos, in their order."""

    def make(photo: Photo) -> Square:
        try:
            return Square(photo, square_of(photo.read(), image_size, smallest, quality))
        except DataError as error:
            return Square(photo, dropped=str(error))
        except (OSError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:  # a damaged or encrypted member
            return Square(photo, dropped=f"unreadable: {error}")

    order = sorted(range(len(photos)), key=lambda index: photos[index].place)
    with ThreadPoolExecutor() as pool:
        made = pool.map(make, (photos[index] for index in order))
        squares = dict(zip(order, tqdm(made, total=len(photos), desc="reading photos", disable=None), strict=True))
    return [squares[index] for index in range(len(photos))]


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
        manifest = json.loads((target / MANIFEST).read_text())
    except OSError:
        if target.exists() and any(target.iterdir()):
            raise DataError(f"target: {target} holds files that prepare_data.py did not make") from None
        return None
    except ValueError:
        raise DataError(f"target: {target / MANIFEST} is damaged; choose another target") from None
    if manifest.get("settings") != settings:
        raise DataError(f"target: {target} was made with other settings: {manifest.get('settings')}")
    return manifest if manifest.get("finished") else None


def _write_manifest(target: Path, manifest: dict[str, Any]) -> None:
    _write_whole(target / MANIFEST, json.dumps(manifest, indent=1).encode())


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises DataError."""
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"target: {path} cannot be written ({error})") from None

"""Photos in parquet files, as Hugging Face data sets store them: an image column and a class column."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from foodgen.core.errors import ConfigError, DataError
from foodgen.data.images import MOST_BYTES
from foodgen.data.names import file_name, shorter, shown
from foodgen.data.photos import TEST, TRAIN, Photo

BROKEN = (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError)  # what bad files raise
HINT = "pip install pyarrow==26.0.1"


def photos_in_parquet(files: Sequence[Path]) -> Iterator[Photo]:
    """The photos of all rows; a file is of the split that its name begins with: train or test.

    Its image column holds bytes or {bytes, path}, its class column text, or numbers that the file's Hugging Face
    metadata names. Raises DataError for a file without such columns, ConfigError without pyarrow.
    """
    parquet, place = _pyarrow(), 0
    for path in files:
        try:
            file = parquet.ParquetFile(path)
            image, label, names = _columns(path, file.schema_arrow)
        except DataError:
            raise
        except BROKEN as error:
            raise DataError(f"source: {path}: {shorter(str(error))}") from None
        split = next((split for split in (TRAIN, TEST) if path.name.startswith(split)), None)
        for group in range(file.num_row_groups):
            reader = _RowGroup(path, file, image, group)
            for row, value in enumerate(_column(path, file, label, group)):
                known = value is not None if names is None else isinstance(value, int) and 0 <= value < len(names)
                name = str(names[value] if names and known else value).replace("/", "-")
                if not known or name.startswith("."):
                    what = shorter(repr(value))
                    raise DataError(f"source: {path}, row {row} of group {group}: {what} is no class")
                origin = f"{path.name}:{group}:{row}"
                content = partial(reader.read, row)
                yield Photo(split, name, file_name(origin.replace(":", "-")), shown(origin), content, place)
                place += 1


class _RowGroup:
    """The images of a row group, which is read when the first one is asked for; the one read last is kept."""

    kept: tuple["_RowGroup | None", list[Any]] = (None, [])
    lock = Lock()

    def __init__(self, path: Path, file: Any, column: str, group: int) -> None:
        self.path, self.file, self.column, self.group = path, file, column, group

    def read(self, row: int) -> bytes:
        """The bytes of an image. Raises DataError if there are none, or more than an image has."""
        with _RowGroup.lock:
            if _RowGroup.kept[0] is not self:
                _RowGroup.kept = (self, _column(self.path, self.file, self.column, self.group))
            value = _RowGroup.kept[1][row]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError("holds no image")
        if len(content) > MOST_BYTES:
            raise DataError(f"its {len(content) / 1e6:.0f} MB are more than the {MOST_BYTES / 1e6:.0f} MB of an image")
        return content


def _column(path: Path, file: Any, name: str, group: int) -> list[Any]:
    """A column of a row group. Raises DataError if it is damaged."""
    try:
        return list(file.read_row_group(group, columns=[name]).column(0).to_pylist())
    except BROKEN as error:
        raise DataError(f"source: {path}, group {group}: {shorter(str(error))}") from None


def _columns(path: Path, schema: Any) -> tuple[str, str, list[str] | None]:
    """The names of the image's and of the class's column, and the classes' names where it has numbers."""
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    images = [
        name for name in schema.names if "image" in name.lower() or features.get(name, {}).get("_type") == "Image"
    ]
    labels = [name for name in schema.names if name in ("label", "labels", "class", "category")]
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"] or labels
    if not images or not labels:
        raise DataError(f"source: {path}: no columns of images and labels among {', '.join(schema.names)}")
    names = features.get(labels[0], {}).get("names")
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise DataError(f"source: {path}: its metadata name no classes but {shorter(repr(names))}")
    return images[0], labels[0], names


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"source: parquet files want the package pyarrow: {HINT}") from None
    return parquet

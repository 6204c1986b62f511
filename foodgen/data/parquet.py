"""Photos in parquet files, as Hugging Face data sets store them: an image column and a class column."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from foodgen.core.errors import ConfigError, DataError
from foodgen.data.photos import TEST, TRAIN, Photo

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
        except (OSError, ValueError) as error:
            raise DataError(f"source: {path}: {error}") from None
        split = next((split for split in (TRAIN, TEST) if path.name.startswith(split)), None)
        for group in range(file.num_row_groups):
            reader = _RowGroup(file, image, group)
            for row, value in enumerate(file.read_row_group(group, columns=[label]).column(0).to_pylist()):
                known = value is not None and (names is None or 0 <= value < len(names))
                name = str(names[value] if names and known else value).replace("/", "-")
                if not known or name.startswith("."):
                    raise DataError(f"source: {path}, row {row} of group {group}: {value!r} is no class")
                origin = f"{path.name}:{group}:{row}"
                yield Photo(split, name, origin.replace(":", "-"), origin, partial(reader.read, row), place)
                place += 1


class _RowGroup:
    """The images of a row group, which is read when the first one is asked for; the one read last is kept."""

    kept: tuple["_RowGroup | None", list[Any]] = (None, [])
    lock = Lock()

    def __init__(self, file: Any, column: str, group: int) -> None:
        self.file, self.column, self.group = file, column, group

    def read(self, row: int) -> bytes:
        """The bytes of an image. Raises OSError if there are none."""
        with _RowGroup.lock:
            if _RowGroup.kept[0] is not self:
                rows = self.file.read_row_group(self.group, columns=[self.column]).column(0).to_pylist()
                _RowGroup.kept = (self, rows)
            value = _RowGroup.kept[1][row]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise OSError("holds no image")
        return content


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
    return images[0], labels[0], features.get(labels[0], {}).get("names")


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"source: parquet files want the package pyarrow: {HINT}") from None
    return parquet

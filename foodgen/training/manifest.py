"""A folder's manifest: the sizes and hashes of its files, by which damage is found."""

import hashlib
import json
import os
from pathlib import Path

from foodgen.core.errors import CheckpointError
from foodgen.core.files import MANIFEST


def seal_files(folder: Path) -> None:
    """Write the manifest of all files in a folder, last of all, and flush everything to disk."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    manifest = {path.name: {"size": path.stat().st_size, "sha256": _hash(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in [*files, folder / MANIFEST, folder]:
        flush(path)


def fingerprint(folder: Path) -> str:
    """What scores name a checkpoint or an exported folder by: a hash of its manifest."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]


def verify(folder: Path) -> set[str]:
    """The names of the files that the manifest lists. Raises CheckpointError, naming a file that is not as it says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        entries = [(str(name), int(entry["size"]), str(entry["sha256"])) for name, entry in manifest.items()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: {in_one_line(error)}") from None
    for name, size, digest in entries:
        path = folder / name
        if Path(name).name != name or "\0" in name or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{folder / repr(name)[1:-1]}: is missing or not a plain file")
        if path.stat().st_size != size or _hash(path) != digest:
            raise CheckpointError(f"{path}: differs from its manifest")
    return {name for name, *_ in entries}


def listed(folder: Path, name: str, names: set[str]) -> Path:
    """A file that the manifest vouches for: one that it does not list may be anybody's."""
    if name not in names:
        raise CheckpointError(f"{folder / name}: is not in the manifest")
    return folder / name


def flush(path: Path) -> None:
    """Have a file, or a folder's list of files, written to the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def in_one_line(error: Exception) -> str:
    """What an error says, for a message of one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

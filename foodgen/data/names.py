"""Names of classes and photos, in any alphabet: which can be folders and files, and how they are told."""

import hashlib
import unicodedata
from collections.abc import Iterable

from foodgen.core.errors import DataError

LONGEST_CLASS, LONGEST_PHOTO = 255, 180  # bytes; a photo's file gets an ending, and while it is written a longer name


def shown(name: str) -> str:
    """The name on one line that every terminal can print: line breaks, control characters, wrong bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def shorter(text: str, length: int = 80) -> str:
    """What is shown of a text that may be very long."""
    return shown(text if len(text) <= length else f"{text[:length]}...")


def check_class(name: str) -> None:
    """Raise DataError if no folder can have this name, or if it cannot be written into a text on one line."""
    reason = None
    if name.startswith(".") or "/" in name or not name.strip():
        reason = "is no name of a folder"
    elif any(unicodedata.category(c) == "Cc" for c in name):
        reason = "holds a line break or another control character"
    elif any(unicodedata.category(c) == "Cs" for c in name):
        reason = "is not UTF-8"
    elif len(name.encode()) > LONGEST_CLASS:
        reason = f"takes {len(name.encode())} bytes, more than the {LONGEST_CLASS} of a folder's name"
    if reason:
        raise DataError(f"the class name '{shorter(name)}' {reason}; rename the class")


def file_name(name: str) -> str:
    """A photo's name as its new file has it: without control characters and wrong bytes, and not too long."""
    clean = "".join("_" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    if len(clean.encode()) <= LONGEST_PHOTO:
        return clean
    start = clean.encode()[: LONGEST_PHOTO - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(clean.encode()).hexdigest()[:8]}"


def as_one(name: str) -> str:
    """The same for names that some file systems take for one: those that differ in case or Unicode form alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different names that some file systems take for one."""
    first: dict[str, str] = {}
    return [(first[as_one(name)], name) for name in sorted(names) if first.setdefault(as_one(name), name) != name]

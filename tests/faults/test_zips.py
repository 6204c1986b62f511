"""Archives that are damaged or meant to do harm: refused or dropped by name, with little memory, nothing outside."""

import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from foodgen.core.errors import DataError
from foodgen.data.zips import MOST_BYTES, SMALL_SUM, photos_in_zip
from tests.conftest import ROOT
from tests.faults.photos import dropped, files_in, picture, prepared

LINK = 0o120777 << 16


def member(name, **values):
    info = zipfile.ZipInfo("name")
    info.filename = name  # ZipInfo would mend it
    info.compress_type = zipfile.ZIP_DEFLATED
    for key, value in values.items():
        setattr(info, key, value)
    return info


def zipped(path, *others, good=2):
    """A zip of `good` photos of the class apple and of other members: (ZipInfo or name, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(good):
            archive.writestr(f"apple/{index}.png", picture(index))
        for info, content in others:
            archive.writestr(member(info) if isinstance(info, str) else info, content)
    return path


@pytest.mark.parametrize("name", ["../evil/a.png", "apple/../../../a.png", "..\\..\\evil\\a.png", "/../a/b.png"])
def test_a_name_that_leads_out_of_the_archive_refuses_it(tmp_path, name):
    source = zipped(tmp_path / "in.zip", (name, picture(9)))
    with pytest.raises(DataError, match=r"in\.zip: the name '.*' leads out of the archive"):
        prepared(source, tmp_path / "out")
    assert files_in(tmp_path) == ["in.zip"]


@pytest.mark.parametrize("name", ["/apple/a.png", "C:\\in\\apple\\a.png", "C:/apple/a.png", "\\\\host\\apple\\a.png"])
def test_absolute_and_drive_names_are_taken_below_the_target(tmp_path, name):
    manifest = prepared(zipped(tmp_path / "in.zip", (name, picture(9))), tmp_path / "out")
    assert (manifest["per_class"]["train"], manifest["dropped"]) == ({"apple": 3}, [])
    assert files_in(tmp_path) == [
        *("in.zip", "out/prepare.json", "out/train/apple/0.jpg", "out/train/apple/1.jpg", "out/train/apple/a.jpg"),
    ]


def test_links_in_an_archive_are_dropped_by_name(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(7))
    link = member("apple/link.png", external_attr=LINK, create_system=3)
    manifest = prepared(zipped(tmp_path / "in.zip", (link, str(secret))), tmp_path / "out")
    assert dropped(manifest) == {"apple/link.png": "unreadable: a link in an archive"}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]


def patched(path, name, **values):
    """Change what the archive says of a member, in its directory and before its content."""
    content = bytearray(path.read_bytes())
    places = {  # by key: format, offset in the directory's entry, offset in the member's own header
        "flags": ("<H", 8, 6), "crc": ("<L", 16, 14), "packed": ("<L", 20, 18), "size": ("<L", 24, 22),
        "method": ("<H", 10, 8), "version": ("<H", 6, 4),
    }  # fmt: skip
    for signature, which, length in ((b"PK\1\2", 1, 46), (b"PK\3\4", 2, 30)):
        start = content.index(name.encode()) - length if which == 2 else content.rindex(name.encode()) - length
        assert content[start : start + 4] == signature
        for key, value in values.items():
            struct.pack_into(places[key][0], content, start + places[key][which], value)
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flags": 1}, "encrypted"),
        ({"crc": 5}, "Bad CRC-32"),
        ({"size": MOST_BYTES + 1}, "MB are more than an image has"),
        ({"size": 2**20 + 1}, "unpacks to more than 100 times its size"),
        ({"method": 12}, "another method than deflate"),
        ({"method": 99}, "another method than deflate"),
        ({"flags": 32}, "patched data"),
        ({"packed": 20}, "unreadable: "),
    ],
)
def test_a_bad_member_is_dropped_by_name(tmp_path, changes, reason):
    source = patched(zipped(tmp_path / "in.zip", ("apple/bad.png", picture(9))), "apple/bad.png", **changes)
    manifest = prepared(source, tmp_path / "out")
    assert manifest["counts"]["train"] == 2
    assert list(dropped(manifest)) == ["apple/bad.png"]
    assert reason in dropped(manifest)["apple/bad.png"]


def test_an_archive_that_unpacks_to_absurdly_much_is_refused_before_work(tmp_path):
    flat = bytes(2**20)  # each is small enough to be borne
    bombs = [(f"apple/b{index}.png", flat) for index in range(SMALL_SUM // 2**20 + 1)]
    with pytest.raises(DataError, match=r"in\.zip: unpacks to more than 100 times its 0\.\d MB"):
        prepared(zipped(tmp_path / "in.zip", *bombs), tmp_path / "out")
    assert not (tmp_path / "out").exists()


MEASURE = """
def peak():  # of this program alone: getrusage's begins with the parent's
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
import sys
from pathlib import Path
from foodgen.core.errors import DataError
from foodgen.data.zips import photos_in_zip
before = peak()
for source in sys.argv[1:]:
    (photo,) = [photo for photo in photos_in_zip(Path(source)) if "bomb" in photo.name]
    try:
        photo.read()
    except DataError as error:
        print(peak() - before, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_member_that_holds_more_than_it_says_takes_little_memory(tmp_path):
    """50 MB of zeros that the archive calls a thousand bytes, by three methods."""
    sources = []
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        bomb = member("apple/bomb.png", compress_type=method)
        source = zipped(tmp_path / f"{method}.zip", (bomb, bytes(50 * 2**20)))
        sources.append(str(patched(source, "apple/bomb.png", size=1000)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *sources], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    found = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert max(float(megabytes) for megabytes, _ in found) < 20
    assert ["Bad CRC-32" in reason or "another method" in reason for _, reason in found] == [True] * 3


@pytest.mark.parametrize("length", [0, 10, 0.3, 0.9, -1])
def test_a_truncated_archive_is_refused_before_work(tmp_path, length):
    source = zipped(tmp_path / "in.zip")
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * length) if isinstance(length, float) else length])
    with pytest.raises(DataError, match=r"source: .*in\.zip: "):
        prepared(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_archives_raise_nothing_but_data_errors(tmp_path):
    """Random bytes of a zip changed, 400 times: read, dropped by name or refused."""
    content = zipped(tmp_path / "in.zip", good=3).read_bytes()
    directory = content.index(b"PK\1\2")
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(400):
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        low = directory if random.random() < 0.7 else 0
        places = random.integers(low, len(content), random.integers(1, 5))
        damaged[places] = random.integers(0, 256, len(places))
        (tmp_path / "in.zip").write_bytes(damaged.tobytes())
        try:
            for photo in photos_in_zip(tmp_path / "in.zip"):
                outcomes.add("found")
                photo.read()
        except DataError as error:
            outcomes.add("refused" if str(error).startswith("source") else "dropped")
    assert outcomes == {"found", "refused", "dropped"}


def test_an_archive_without_a_usable_photo_is_an_error_and_leaves_nothing(tmp_path):
    source = zipped(tmp_path / "in.zip", good=1)
    patched(source, "apple/0.png", flags=1)
    with pytest.raises(DataError, match=r"none of its 1 photos can be used, the first: apple/0\.png \(.*encrypted"):
        prepared(source, tmp_path / "out")
    assert files_in(tmp_path) == ["in.zip"]


def test_one_name_twice_in_an_archive_keeps_both(tmp_path, recwarn):
    manifest = prepared(zipped(tmp_path / "in.zip", ("apple/0.png", picture(9))), tmp_path / "out")
    assert manifest["counts"]["train"] == 3
    made = tmp_path / "out" / "train" / "apple"
    assert (made / "0.jpg").read_bytes() != (made / "0-2.jpg").read_bytes()

"""Sources and targets that are no plain folders of photos: named in one line before any work, nothing lost."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from foodgen.commands import cli
from foodgen.core.errors import DataError
from foodgen.data.checking import check_folder
from foodgen.data.folder import Folder
from foodgen.data.prepare import MANIFEST
from foodgen.data.synthetic import Synthetic
from tests.conftest import ROOT
from tests.faults.photos import class_folders, dropped, files_in, picture, prepared, put


def loop(path):
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


SOURCES = {
    "a text": (lambda path: path.write_text("no zip"), "source: .*in: File is not a zip file"),
    "a pipe": (os.mkfifo, "in is neither a folder nor a zip nor a parquet file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "in is neither a folder nor a zip"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "in is neither a folder nor a zip"),
    "a loop of links": (loop, "in is neither a folder nor a zip"),
    "an empty folder": (Path.mkdir, "in holds no images in class folders"),
    "photos without classes": (lambda path: put(path / "1.png", picture(1)), "in holds no images in class folders"),
    "a link to itself alone": (lambda path: (path.mkdir(), (path / "a").symlink_to(path)), "holds no images"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_of_another_kind_is_refused_before_work(tmp_path, kind):
    make, message = SOURCES[kind]
    make(tmp_path / "in")
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["a text", "a pipe", "a dangling link", "a loop of links"])
def test_a_training_folder_of_another_kind_is_refused(tmp_path, kind):
    SOURCES[kind][0](tmp_path / "in")
    for read in (lambda path: Folder(path, 16), check_folder, lambda path: Synthetic(path, 16, root=tmp_path / "none")):
        with pytest.raises(DataError, match="in: there is no such folder"):
            read(tmp_path / "in")


@pytest.mark.parametrize("kind", ["pipe", "device", "dangling", "loop", "folder"])
def test_special_files_among_photos_are_named_and_never_waited_for(tmp_path, kind, caplog):
    """A pipe without a writer would be waited for without end; so would some devices."""
    source = class_folders(tmp_path / "in")
    path = source / "apple" / "special.png"
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "dangling": lambda: path.symlink_to("nowhere.png"),
        "loop": lambda: loop(path),
        "folder": lambda: path.mkdir(),
    }[kind]()
    manifest = prepared(source, tmp_path / "out")
    images = Folder(source, 16)
    images.batch(range(len(images)))
    named = [] if kind == "folder" else ["apple/special.png"]
    assert (manifest["counts"]["train"], list(dropped(manifest)), list(images.broken)) == (2, named, named)
    assert caplog.text.count("special.png") == len(named)
    errors = check_folder(source).errors
    assert [("apple/special.png (" in error) for error in errors] == [True] * len(named)


def test_a_first_file_that_is_a_pipe_is_no_end(tmp_path):
    source = class_folders(tmp_path / "in")
    os.mkfifo(source / "apple" / ".0.png.png")
    (source / "apple" / "0.png").unlink()
    os.mkfifo(source / "apple" / "0.png")
    assert len(Folder(source, 16).batch([0, 1])[0]) == 2


def test_links_to_folders_are_told_and_lead_in_no_circles(tmp_path, caplog):
    """A folder that links to its parent, and two that link to each other."""
    source = class_folders(tmp_path / "in", ("apple", "bread"))
    (source / "apple" / "up").symlink_to(source)
    (source / "apple" / "bread").symlink_to(source / "bread")
    (source / "bread" / "apple").symlink_to(source / "apple")
    with caplog.at_level(logging.WARNING):
        assert prepared(source, tmp_path / "out")["per_class"]["train"] == {"apple": 2, "bread": 2}
    for link in ("apple/up", "apple/bread", "bread/apple"):
        assert f"{link} is a link to a folder; it is not followed" in caplog.text
    assert len(Folder(source, 16)) == 4
    assert not check_folder(source).errors


def test_a_class_that_is_a_link_to_its_parent_is_refused_in_a_training(tmp_path):
    source = class_folders(tmp_path / "in")
    (source / "all").symlink_to(source)
    for read in (lambda path: Folder(path, 16), check_folder):
        with pytest.raises(DataError, match="in/all: is a link to the folder that it is in"):
            read(source)
    (source / "all").unlink()
    (source / "linked").symlink_to(class_folders(tmp_path / "elsewhere") / "apple")  # a class elsewhere is one
    assert Folder(source, 16).classes == ["apple", "linked"]


def test_very_deep_folders_are_walked(tmp_path):
    """Deeper than Python's own stack."""
    source = class_folders(tmp_path / "in")
    here = os.open(source / "apple", os.O_RDONLY)
    for _ in range(1050):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert prepared(source, tmp_path / "out")["counts"]["train"] == 2
    subprocess.run(["rm", "-rf", str(source)], check=True)  # pytest's own removal is not as deep


AS_ANOTHER_USER = """
import os, sys
from foodgen.commands import cli
from foodgen.core.errors import UserError
os.setgid(65534), os.setuid(65534)
for line in sys.stdin:
    try:
        cli.main(line.split())
    except UserError as error:
        print("error:", error)
"""


@pytest.fixture
def open_folder():
    """A folder that every user reaches; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_what_may_not_be_read_or_written_is_named(open_folder):
    """A whole source, a class, a file and a target without rights: one line, status 2, nothing written."""
    source = class_folders(open_folder / "in", ("apple", "bread"))
    (source / "bread").chmod(0o700)
    (open_folder / "closed").mkdir(mode=0o700)
    commands = [
        f"prepare source={source} target={open_folder / 'out'}",
        f"check data={source}",
        f"prepare source={open_folder / 'closed' / 'in'} target={open_folder / 'out'}",
        f"check data={open_folder / 'closed'}",
        f"prepare source={source / 'apple'} target={open_folder / 'closed' / 'out'}",
        f"prepare source={source} target={open_folder / 'closed'}",
    ]
    command = [sys.executable, "-c", AS_ANOTHER_USER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, input="\n".join(commands))
    assert done.stdout.splitlines() == [
        f"error: source: {source / 'bread'}: cannot be read (Permission denied)",
        f"error: {source / 'bread'}: cannot be read (Permission denied)",
        f"error: source: {open_folder / 'closed' / 'in'}: cannot be read (Permission denied)",
        f"error: {open_folder / 'closed' / 'train'}: cannot be read (Permission denied)",
        f"error: target: {open_folder / 'closed' / 'out'} cannot be used (Permission denied)",
        f"error: target: {open_folder / 'closed'} cannot be used (Permission denied)",
    ], done.stderr
    assert files_in(open_folder) == [f"in/{name}/{index}.png" for name in ("apple", "bread") for index in range(2)]


TARGETS = {
    "the source": ("in", "holds files that prepare_data.py did not make"),
    "in the source": ("in/small", "holds the target, .*in/small, whose files would be taken for photos"),
    "by a link in the source": ("link/small", "holds the target"),
    "above the source": (".", "holds files that prepare_data.py did not make"),
    "a file": ("file", "target: .*file cannot be used .Not a directory"),
    "below a file": ("file/out", "target: .*out cannot be used .Not a directory"),
    "a loop": ("loop", "target: .*loop"),
    "a dangling link": ("dangling", "target: .*dangling.* cannot be written"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_target_that_cannot_be_is_refused_before_work(tmp_path, kind, monkeypatch):
    name, message = TARGETS[kind]
    source = class_folders(tmp_path / "in")
    put(tmp_path / "file", b"mine")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "dangling").symlink_to("nowhere")
    loop(tmp_path / "loop")
    before = files_in(tmp_path)
    monkeypatch.setattr("foodgen.data.prepare._squares", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(DataError, match=message):
        prepared(source, tmp_path / name)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"settings": 3}'])
def test_a_damaged_manifest_is_refused_and_stays(tmp_path, content):
    put(tmp_path / "out" / MANIFEST, content)
    with pytest.raises(DataError, match=r"is damaged|was made with other settings"):
        prepared(class_folders(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST).read_bytes() == content


def test_a_class_of_bad_photos_alone_is_told_and_the_others_are_made(tmp_path, caplog):
    source = class_folders(tmp_path / "in", ("apple", "bread"))
    (source / "empty class").mkdir()
    for path in (source / "bread").iterdir():
        path.write_bytes(b"")
    put(source / "apple" / "deeper" / "still" / "3.PNG", picture(3))  # its class is the folder that it is in
    with caplog.at_level(logging.WARNING):
        manifest = prepared(source, tmp_path / "out")
    assert manifest["per_class"]["train"] == {"apple": 2, "still": 1}
    assert sorted(dropped(manifest)) == ["bread/0.png", "bread/1.png"]
    assert "class bread: none of its photos can be used" in caplog.text


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"<html>")])
def test_a_source_of_bad_photos_alone_is_an_error_and_leaves_nothing(tmp_path, spoil):
    source = class_folders(tmp_path / "in")
    for path in (source / "apple").iterdir():
        spoil(path)
    with pytest.raises(DataError, match=r"none of its 2 photos can be used, the first: apple/0\.png \(unreadable"):
        prepared(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_photos_to_hold_back_leave_nothing(tmp_path):
    """So that another val_per_class can be tried on the same target."""
    source = class_folders(tmp_path / "in", count=4)
    put(source / "apple" / "0.png", b"")
    with pytest.raises(DataError, match="too few to hold 3 back for val"):
        prepared(source, tmp_path / "out", val_per_class=3)
    assert not (tmp_path / "out").exists()
    assert prepared(source, tmp_path / "out", val_per_class=2)["counts"] == {"test": 0, "val": 2, "train": 1}


def test_a_full_disk_is_one_line_and_the_preparation_goes_on_later(tmp_path, monkeypatch):
    source = class_folders(tmp_path / "in", count=4)
    whole = prepared(source, tmp_path / "whole")
    written = []

    def write(path, content):
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return original(path, content)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(DataError, match=r"target: .*apple.*jpg cannot be written .*No space left"):
        prepared(source, tmp_path / "out")
    assert len(files_in(tmp_path / "out")) == 3  # the manifest and two photos, nothing half written
    monkeypatch.undo()
    assert prepared(source, tmp_path / "out")["hashes"] == whole["hashes"]


@pytest.mark.parametrize("name", ["../x", "me/../x", "", "me/a b", "/etc", "me/" + "x" * 200, "me/x\nworse"])
def test_a_data_set_of_the_hub_with_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(DataError) as raised:
        prepared(f"hub:{name}", tmp_path / "out")
    assert "cannot be downloaded" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_one_line_and_status_two(tmp_path, script):
    class_folders(tmp_path / "in")
    done = script("prepare_data.py", "exp.config_path=configs/prepare.yaml", f"source={tmp_path / 'in'}",
                  f"target={tmp_path / 'in' / 'out'}")  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: source: {tmp_path / 'in'} holds the target, {tmp_path / 'in' / 'out'}, whose files would be taken for "
        "photos of the source"
    ]
    assert cli.main(["check", f"data={tmp_path / 'in'}"]) == 0
    shutil.rmtree(tmp_path / "in")

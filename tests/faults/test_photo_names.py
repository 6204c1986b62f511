"""Names of classes and photos in any alphabet: kept, or refused with the name, never written outside the target."""

import json
import logging
import os
import unicodedata
import zipfile

import pytest

from foodgen.commands import cli
from foodgen.core.errors import DataError
from foodgen.data.checking import check_folder
from foodgen.data.folder import Folder
from foodgen.data.names import as_one, shown, twins
from foodgen.data.packed import Packed
from tests.faults.photos import class_folders, files_in, picture, prepared, put

CAFE = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
KEPT = {
    "cyrillic": "борщ",
    "chinese": "饺子",
    "emoji": "🍕 pizza 👩‍🍳",
    "right to left": "שקשוקה",
    "combining": CAFE[1],
    "spaces": " apple  pie ",
    "trailing dot": "apple.",
    "quotes": "mac 'n' \"cheese\"",
    "shell": "$(touch x); rm -rf *",
    "percent": "100%s {0} %(x)d",
    "option": "-rf",
    "reserved": "CON",
    "long": "x" * 255,
    "long chinese": "饺" * 85,
}
LONG = max(200, 255 - 4)


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_names_of_every_alphabet_are_kept(tmp_path, kind, zipped, capsys):
    name = KEPT[kind]
    content = picture(0)
    source = tmp_path / "in"
    stem = name if len(name.encode()) < LONG else name[: LONG // len(name[0].encode())]
    put(source / name / f"{stem}.png", content)
    put(source / name / "broken.png", b"")
    if zipped:
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for path in sorted((source / name).iterdir()):
                archive.write(path, path.relative_to(source))
    manifest = prepared(tmp_path / "in.zip" if zipped else source, tmp_path / "out")
    assert manifest["classes"] == [name]
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["classes"] == [name]
    (made,) = (tmp_path / "out" / "train" / name).iterdir()
    assert made.stem == stem or (len(stem.encode()) > 180 and stem.startswith(made.stem[:-9]))
    assert (made.suffix, manifest["counts"]["train"]) == (".jpg", 1)
    # a training and a check read the set
    for kind_of_set in (Folder, Packed):
        assert kind_of_set(tmp_path / "out" / "train", 16).classes == [name]
    print(check_folder(tmp_path / "out" / "train"))
    assert "1 images of 1 classes" in capsys.readouterr().out


REFUSED = {
    "new\nline": "holds a line break or another control character",
    "bell\a": "holds a line break or another control character",
    "\x9b31m": "holds a line break or another control character",
    "escape\x1b[31m": "holds a line break or another control character",
    " ": "is no name of a folder",
    "x" * 256: "takes 256 bytes, more than the 255 of a folder's name",
    "饺" * 86: "takes 258 bytes",
    os.fsdecode(b"caf\xe9"): "is not UTF-8",
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_class_names_that_cannot_be_are_refused_with_the_name(tmp_path, name):
    """By the preparation of a folder or a zip, by a training and by a check, in one line that can be printed."""
    folder, source = tmp_path / "in", tmp_path / "in.zip"
    readers = [lambda: prepared(source, tmp_path / "out")]
    if "UTF-8" not in REFUSED[name]:
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr(f"{name}/0.png", picture(0))
    if len(os.fsencode(name)) <= 255:
        class_folders(folder, (name,))
        if "UTF-8" in REFUSED[name]:
            readers = []
        readers += [
            lambda: prepared(folder, tmp_path / "out"),
            lambda: Folder(folder, 16),
            lambda: check_folder(folder),
        ]
    for read in readers:
        with pytest.raises(DataError, match=REFUSED[name]) as raised:
            read()
        text = str(raised.value)
        assert shown(name)[:80] in text
        assert text.isprintable() and text.encode() and len(text) < 500
    assert not (tmp_path / "out").exists()


PHOTOS = {
    "new\nline": "new_line",
    "bell\a\x1b[31m": "bell__[31m",
    os.fsdecode(b"caf\xe9"): "caf_",
    "x" * 251: "x" * 171 + "-",
    "饺" * 83: "饺" * 57 + "-",
    " spaces . ": " spaces . ",
}


@pytest.mark.parametrize("name", PHOTOS, ids=ascii)
def test_photos_with_odd_names_are_kept_under_a_plain_one(tmp_path, name, capsys):
    source = class_folders(tmp_path / "in")
    for index, ending in enumerate((".png", ".jpg")):  # the same name twice
        put(source / "apple" / f"{name}{ending}", picture(10 + index))
    manifest = prepared(source, tmp_path / "out")
    assert manifest["counts"]["train"] == 4
    made = [path.stem for path in (tmp_path / "out" / "train" / "apple").iterdir() if path.stem not in "01"]
    assert len(made) == 2 and all(stem.startswith(PHOTOS[name]) for stem in made)
    assert all(len(stem.encode()) < 200 for stem in made)
    # a training reads the photos under their own names
    for kind in (Folder, Packed):
        assert len(kind(source, 16).batch(range(4))[0]) == 4
    put(source / "apple" / f"{name}.png", b"")
    print(check_folder(source))
    assert shown(f"apple/{name}.png") in capsys.readouterr().out


def test_bad_photos_with_odd_names_are_told_in_one_line(tmp_path, capsys):
    source = class_folders(tmp_path / "in")
    put(source / "apple" / os.fsdecode(b"caf\xe9\n.png"), b"")
    options = ["image_size=16", "smallest=8", "test_per_class=0", "val_per_class=0"]
    assert not cli.main(["prepare", f"source={source}", f"target={tmp_path / 'out'}", *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == r"dropped apple/caf\udce9\n.png: unreadable: is no image"
    assert len(lines) == 2


def test_a_nul_in_a_zip_ends_the_name(tmp_path):
    source = tmp_path / "in.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("apple/0.png", picture(0))
        archive.writestr("apple/a.png#/../../evil.png", picture(1))
    source.write_bytes(source.read_bytes().replace(b"a.png#/", b"a.png\0/"))
    manifest = prepared(source, tmp_path / "out")
    assert manifest["counts"]["train"] == 2
    assert files_in(tmp_path) == ["in.zip", "out/prepare.json", "out/train/apple/0.jpg", "out/train/apple/a.jpg"]


@pytest.mark.parametrize("names", [("Apple", "apple"), CAFE, ("Straße", "STRASSE")], ids=["case", "form", "folded"])
def test_classes_that_differ_in_case_or_form_alone_are_refused(tmp_path, names, caplog):
    """Some file systems would mix their photos; one of them can be taken alone. A training and a check warn."""
    source = class_folders(tmp_path / "in", names)
    with pytest.raises(DataError) as raised:
        prepared(source, tmp_path / "out")
    assert all(name in str(raised.value) for name in names)
    assert not (tmp_path / "out").exists()
    assert prepared(source, tmp_path / "one", classes=[names[0]])["classes"] == [names[0]]
    with caplog.at_level(logging.WARNING):
        assert len(Folder(source, 16).classes) == 2
    assert "differ in case or Unicode form alone" in caplog.text
    assert any("differ in case or Unicode form alone" in warning for warning in check_folder(source).warnings)


def test_photos_that_differ_in_case_or_form_alone_are_told_apart(tmp_path):
    source = class_folders(tmp_path / "in")
    for index, name in enumerate(["A", "a", *CAFE]):
        put(source / "apple" / f"{name}.png", picture(10 + index))
    prepared(source, tmp_path / "out")
    made = [path.stem for path in (tmp_path / "out" / "train" / "apple").iterdir()]
    assert len({as_one(stem) for stem in made}) == 6
    assert twins(made) == []


@pytest.mark.parametrize("label", ["", "a\nb", "a\0b", "x" * 300, "..", "a/../../b", "\\..\\b"])
def test_class_names_in_parquet_files_are_refused_or_made_plain(tmp_path, label):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"bytes": picture(index), "path": None} for index in range(2)]
    parquet.write_table(pyarrow.table({"image": rows, "label": ["cake", label]}), tmp_path / "in.parquet")
    try:
        manifest = prepared(tmp_path / "in.parquet", tmp_path / "out")
        assert "/" in label or "\\" in label
        assert manifest["counts"]["train"] == 2
    except DataError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 400
    assert {path.split("/")[0] for path in files_in(tmp_path)} <= {"in.parquet", "out"}
    assert all(path.count("/") == 3 for path in files_in(tmp_path) if path.endswith(".jpg"))


@pytest.mark.parametrize("names", [3, "cake", [1, 2], {"a": 1}, [["cake"]]])
def test_parquet_files_with_malformed_metadata_are_refused(tmp_path, names):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [picture(0)], "label": [0]})
    described = {"label": {"_type": "ClassLabel", "names": names}}
    for features in (described,) if isinstance(names, dict) else (names, {"label": names}, described):
        content = json.dumps({"info": {"features": features}})
        parquet.write_table(table.replace_schema_metadata({"huggingface": content}), tmp_path / "in.parquet")
        with pytest.raises(DataError, match=r"source: .*in\.parquet: "):
            prepared(tmp_path / "in.parquet", tmp_path / "out")


def test_damaged_parquet_files_raise_nothing_but_data_errors(tmp_path):
    """Cut at ten places, and with zeros written over the pages of images or of labels."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [picture(index) for index in range(8)], "label": ["cake", "soup"] * 4})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    content = (tmp_path / "in.parquet").read_bytes()
    damaged = [content[: len(content) * tenth // 10] for tenth in range(10)]
    damaged += [content[:place] + bytes(60) + content[place + 60 :] for place in range(4, len(content) - 60, 200)]
    for number, changed in enumerate(damaged):
        (tmp_path / "in.parquet").write_bytes(changed)
        try:
            prepared(tmp_path / "in.parquet", tmp_path / f"out{number}")
        except DataError as error:
            assert "in.parquet" in str(error)

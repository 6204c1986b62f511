"""Folders of photos are looked at before a training; parquet files are photos too."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from foodgen.commands import cli
from foodgen.core.errors import DataError
from foodgen.data.checking import check_folder
from foodgen.data.prepare import prepare
from foodgen.data.sources import find_photos


def image(seed, size=(16, 16)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path):
    """train/ and test/ of two classes, five photos each."""
    for number, (split, name) in enumerate((split, name) for split in ("train", "test") for name in ("a", "b")):
        (tmp_path / split / name).mkdir(parents=True)
        for index in range(5):
            image(10 * number + index).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def test_a_sound_folder_has_no_errors(photos, capsys):
    found = check_folder(photos, 16)
    assert (found.errors, [sum(split.per_class.values()) for split in found.splits]) == ([], [10, 10])
    assert cli.main(["check", f"data={photos}", "image_size=16"]) == 0
    assert "train: 10 images of 2 classes, 5 to 5 each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("train/a/bad.jpg", lambda path: path.write_bytes(b"no"), "1 files cannot be read: a/bad.jpg"),
        ("train/a/bad.jpg", lambda path: image(1).save(path, "PNG"), None),  # the ending does not matter
        ("train/a/wide.png", lambda path: image(2, (20, 16)).save(path), "train: 1 images are not 16x16"),
        ("test/a/leak.png", lambda path: image(3).save(path), "in train and in test: test/a/leak.png = train/a/3.png"),
        ("train/c", lambda path: path.mkdir(), "train: 1 classes are empty: c"),
        ("test/d/1.png", lambda path: (path.parent.mkdir(), image(99).save(path)), "have other classes: d"),
    ],
)
def test_what_hinders_a_training_is_named(photos, name, spoil, message):
    spoil(photos / name)
    errors = check_folder(photos, 16).errors
    assert any(message in error for error in errors) if message else not errors


def test_what_should_be_known_is_a_warning(photos):
    image(0).save(photos / "train" / "b" / "again.png")
    (photos / "train" / "b" / "note.txt").write_text("x")
    found = check_folder(photos, 16)
    assert not found.errors
    assert "train: 1 images are there twice: b/again.png = a/0.png" in found.warnings
    assert "train: 1 files are not used: b/note.txt" in found.warnings


def parquet_file(path, labels, names=None):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = []
    for number, _ in enumerate(labels):
        stream = io.BytesIO()
        image(number).save(stream, "PNG")
        rows.append({"bytes": stream.getvalue(), "path": f"{number}.png"})
    table = pyarrow.table({"image": rows, "label": labels})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=4)


def test_parquet_files_are_prepared_like_folders(tmp_path):
    parquet_file(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", [0, 1] * 5, ["cake", "soup"])
    parquet_file(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", [1, 0], ["cake", "soup"])
    manifest = prepare(str(tmp_path / "set"), tmp_path / "out", 16, 8, 1, 1, 95, 0)
    assert manifest["classes"] == ["cake", "soup"]
    assert manifest["counts"] == {"test": 2, "val": 2, "train": 6}  # the first two photos are copies of test photos
    for photo in find_photos(str(tmp_path / "set"), tmp_path):
        if photo.split == "train":
            assert photo.label == ("cake", "soup")[photo.place % 2 == 1]


def test_parquet_files_that_are_none_are_refused(tmp_path):
    parquet_file(tmp_path / "above.parquet", ["../a", "b"])
    with pytest.raises(DataError, match=r"above\.parquet, row 0 of group 0: '\.\./a' is no class"):
        find_photos(str(tmp_path / "above.parquet"), tmp_path)
    parquet_file(tmp_path / "unlabelled.parquet", [-1, 0], ["cake"])
    with pytest.raises(DataError, match="row 0 of group 0: -1 is no class"):
        find_photos(str(tmp_path / "unlabelled.parquet"), tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"broken\.parquet"):
        find_photos(str(tmp_path / "broken.parquet"), tmp_path)

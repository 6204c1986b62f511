"""Preparation: every layout, every drop, interruption and repetition."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from foodgen.core.errors import DataError
from foodgen.data import prepare as preparation

SETTINGS = {
    "image_size": 16,
    "smallest": 8,
    "test_per_class": 2,
    "val_per_class": 1,
    "quality": 95,
    "seed": 0,
}


def picture(seed, size=(16, 16), kind="JPEG", mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(pixels).resize(size).convert(mode).save(whole, kind)
    return whole.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tree(root, per_class=8, classes=("apple", "bread"), first=0):
    for number, label in enumerate(classes):
        for i in range(per_class):
            put(root / label / f"{i}.jpg", picture(first + 100 * number + i))
    return root


def prepare(source, target, **changes):
    return preparation.prepare(str(source), target, **{**SETTINGS, **changes})


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def test_splits_a_class_tree(tmp_path):
    manifest = prepare(tree(tmp_path / "in"), tmp_path / "out")
    assert manifest["counts"] == {"test": 4, "val": 2, "train": 10}
    assert manifest["classes"] == ["apple", "bread"]
    assert manifest["per_class"]["test"] == {"apple": 2, "bread": 2}
    splits = [set(names(tmp_path / "out" / split)) for split in ("train", "val", "test")]
    assert set.union(*splits) == set(names(tmp_path / "in"))
    assert sum(map(len, splits)) == 16
    for name in names(tmp_path / "out" / "train"):  # squares of the right size are copied as they are
        assert (tmp_path / "out" / "train" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    again = prepare(tmp_path / "in", tmp_path / "again")
    assert names(tmp_path / "again" / "test") == names(tmp_path / "out" / "test")
    assert again["hashes"] == manifest["hashes"]
    other = prepare(tmp_path / "in", tmp_path / "other", seed=1)
    assert other["hashes"]["test"] != manifest["hashes"]["test"]


def test_food101s_archive_layout_says_that_its_test_photos_are_drawn(tmp_path, caplog):
    tree(tmp_path / "food-101" / "images")
    put(tmp_path / "food-101" / "meta" / "classes.txt", b"apple\nbread\n")
    manifest = prepare(tmp_path / "food-101", tmp_path / "out")
    assert manifest["classes"] == ["apple", "bread"]
    assert sum(manifest["counts"].values()) == 16
    assert "has no test/ of its own: test/ is 2 photos a class drawn at random" in caplog.text


@pytest.mark.parametrize("packed", ["one", "several"])
def test_zips_with_a_given_split(tmp_path, packed, caplog):
    tree(tmp_path / "train")
    tree(tmp_path / "test", per_class=3, first=50)  # other pictures of the same names
    source = tmp_path / "zips"
    source.mkdir()
    for split in ("train", "test"):
        target = source / ("all.zip" if packed == "one" else f"{split}.zip")
        with zipfile.ZipFile(target, "a") as archive:
            for path in (tmp_path / split).rglob("*.jpg"):
                archive.write(path, path.relative_to(tmp_path))
    manifest = prepare(source / "all.zip" if packed == "one" else source, tmp_path / "out")
    assert manifest["counts"] == {"test": 6, "val": 2, "train": 14}
    assert names(tmp_path / "out" / "test") == names(tmp_path / "test")
    assert "drawn at random" not in caplog.text


def test_training_copies_of_test_photos_go(tmp_path):
    source = tmp_path / "in"
    tree(source / "train")
    tree(source / "test", per_class=1)  # the same pictures as train's 0.jpg
    manifest = prepare(source, tmp_path / "out", val_per_class=0)
    assert manifest["counts"] == {"test": 2, "val": 0, "train": 14}
    assert {drop["photo"] for drop in manifest["dropped"]} == {"train/apple/0.jpg", "train/bread/0.jpg"}
    assert all("identical to the test photo test/" in drop["reason"] for drop in manifest["dropped"])


def test_validation_photos_occur_once(tmp_path):
    source = tree(tmp_path / "in", per_class=4, classes=("apple",))
    for i in range(30):
        put(source / "apple" / f"copy{i}.jpg", picture(0))
    prepare(source, tmp_path / "out", test_per_class=0, val_per_class=2)
    assert set(names(tmp_path / "out" / "val")) < {"apple/1.jpg", "apple/2.jpg", "apple/3.jpg"}


def test_crops_resizes_and_drops(tmp_path):
    source = tree(tmp_path / "in", classes=("apple",))
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    whole = io.BytesIO()
    wide.save(whole, "PNG")
    put(source / "apple" / "wide.PNG", whole.getvalue())
    clear = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(clear, "PNG")
    put(source / "apple" / "clear.png", clear.getvalue())
    put(source / "apple" / "grey.jpg", picture(7, (16, 16), mode="L"))
    put(source / "apple" / "tiny.jpg", picture(8, (20, 4)))
    put(source / "apple" / "empty.jpg", b"")
    put(source / "apple" / "page.jpg", b"<html>not found</html>")
    put(source / "apple" / "cut.jpg", picture(9, (64, 64))[:-300])
    put(source / "apple" / "notes.txt", b"no photo")
    put(source / "apple" / ".hidden.jpg", picture(10))
    manifest = prepare(source, tmp_path / "out", test_per_class=0, val_per_class=0)
    reasons = {drop["photo"].split("/")[-1]: drop["reason"] for drop in manifest["dropped"]}
    assert set(reasons) == {"tiny.jpg", "empty.jpg", "page.jpg", "cut.jpg"}
    assert reasons["tiny.jpg"] == "too small: 20x4"
    made = tmp_path / "out" / "train" / "apple"
    assert len(list(made.iterdir())) == 11
    with Image.open(made / "wide.jpg") as image:
        assert image.size == (16, 16)
        red, _, blue = image.getpixel((8, 8))
        assert blue > 200
        assert red < 60  # the middle of the photo, not its left
    with Image.open(made / "clear.jpg") as image:
        assert min(image.getpixel((8, 8))) > 245  # transparent becomes white, not black
    with Image.open(made / "grey.jpg") as image:
        assert image.mode == "RGB"


def test_one_name_twice_keeps_both(tmp_path):
    source = tree(tmp_path / "in", classes=("apple",))
    put(source / "apple" / "0.png", picture(50, kind="PNG"))
    manifest = prepare(source, tmp_path / "out", test_per_class=0, val_per_class=0)
    assert manifest["counts"]["train"] == 9
    assert {"0.jpg", "0-2.jpg"} <= {path.name for path in (tmp_path / "out" / "train" / "apple").iterdir()}


def test_an_interrupted_run_is_taken_up_again(tmp_path, monkeypatch):
    source = tree(tmp_path / "in")
    whole = prepare(source, tmp_path / "whole")
    written = []

    def cut_off(self, split, squares, original=preparation._Writer.write):
        original(self, split, squares[:3])
        written.append(split)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation._Writer, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["finished"] is False
    assert prepare(source, tmp_path / "out")["hashes"] == whole["hashes"]
    assert names(tmp_path / "out") == names(tmp_path / "whole")
    monkeypatch.setattr(preparation, "find_photos", lambda *_: pytest.fail("prepared twice"))
    assert prepare(source, tmp_path / "out")["counts"] == whole["counts"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: {"seed": 5}, "made with other settings"),
        (lambda root: put(root / "out" / "prepare.json", b"{") or {}, "damaged"),
    ],
)
def test_a_target_of_other_settings_stays(tmp_path, spoil, message):
    prepare(tree(tmp_path / "in"), tmp_path / "out")
    changes = spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", **changes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "neither a folder nor a zip"),
        ("empty", "holds no images"),
        ("bad.zip", "bad.zip"),
        ("few", "too few"),
    ],
)
def test_bad_sources(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    put(tmp_path / "bad.zip", b"no zip")
    tree(tmp_path / "few", per_class=2)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_target_with_foreign_files_stays(tmp_path):
    put(tmp_path / "out" / "mine.jpg", b"precious")
    with pytest.raises(DataError, match="did not make"):
        prepare(tree(tmp_path / "in"), tmp_path / "out")
    assert names(tmp_path / "out") == ["mine.jpg"]


def test_only_the_classes_asked_for(tmp_path):
    source = tree(tmp_path / "in", classes=("apple", "bread", "cheese"))
    manifest = prepare(source, tmp_path / "out", classes=["cheese", "apple"])
    assert manifest["classes"] == ["apple", "cheese"]
    assert not (tmp_path / "out" / "train" / "bread").exists()
    with pytest.raises(DataError, match="no class 'cheeze'; did you mean 'cheese'"):
        prepare(source, tmp_path / "none", classes=["cheeze"])
    assert not (tmp_path / "none").exists()

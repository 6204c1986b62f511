"""Image sets: folders, packs and the drawn dishes; bad files above all."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from foodgen.core.errors import DataError
from foodgen.data.codecs import RGB
from foodgen.data.folder import Folder
from foodgen.data.packed import Packed
from foodgen.data.synthetic import DISHES, Synthetic, draw_set

SETS = pytest.mark.parametrize("kind", [Folder, Packed])


@pytest.fixture
def dish_copy(dishes, tmp_path):
    return shutil.copytree(dishes / "train", tmp_path / "train")


def everything(images):
    return images.batch(range(len(images)))


@SETS
def test_reads_classes_in_sorted_order(kind, dish_copy):
    images = kind(dish_copy, 16)
    assert images.classes == sorted(DISHES)
    assert len(images) == 96
    pixels, labels = everything(images)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (96, 3, 16, 16))
    assert labels.tolist() == [number for number in range(8) for _ in range(12)]
    with Image.open(dish_copy / "donuts" / "00003.jpg") as image:
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(images[15][0], expected)
    assert images[15][1] == 1


BAD = {
    "empty.jpg": b"",
    "page.jpg": b"<html></html>",
    "noise.png": bytes(range(256)),
    "Cut.JPG": None,  # a photo cut in half
    "32 pixels.png": None,  # another size
}


def spoil(folder):
    for name, content in BAD.items():
        if name == "Cut.JPG":
            content = (folder / "00000.jpg").read_bytes()[:200]
        elif name == "32 pixels.png":
            whole = io.BytesIO()
            Image.new("RGB", (32, 32)).save(whole, "PNG")
            content = whole.getvalue()
        (folder / name).write_bytes(content)
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "readme.txt").write_text("no image")


@SETS
def test_bad_files_are_named_and_skipped(kind, dish_copy, caplog):
    spoil(dish_copy / "pizza")
    (dish_copy / "empty class").mkdir()
    images = kind(dish_copy, 16)
    pixels, labels = everything(images)
    assert set(images.broken) == {f"pizza/{name}" for name in [*BAD, "dangling.jpg"]}
    for name in images.broken:
        assert caplog.text.count(f"{name}:") == 1
    assert "empty class holds no images" in caplog.text
    counts = labels.bincount(minlength=9).tolist()
    pizza = images.classes.index("pizza")
    assert counts[pizza] == (12 if kind is Packed else 18)  # a folder gives a neighbour of the class instead
    assert (pixels[labels == pizza].float().std(dim=(1, 2, 3)) > 1).all()


@SETS
def test_a_wholly_bad_class_is_borne(kind, dish_copy):
    for path in sorted((dish_copy / "soup").iterdir())[2:]:
        path.unlink()
    for path in (dish_copy / "soup").iterdir():
        path.write_bytes(b"")
    labels = everything(kind(dish_copy, 16))[1]
    assert (labels == sorted(DISHES).index("soup")).sum() == 0


@SETS
def test_too_many_bad_files_are_an_error(kind, dish_copy):
    for path in (dish_copy / "soup").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"more than 10 broken images, the last: .*soup"):
        everything(kind(dish_copy, 16))


def test_a_file_deleted_while_training_is_replaced(dish_copy):
    images = Folder(dish_copy, 16)
    (dish_copy / "donuts" / "00003.jpg").unlink()
    assert torch.equal(images[15][0], images[16][0])
    assert images[15][1] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "there is no such folder"),
        (lambda root: root, "holds no class folders"),
        (lambda root: (root / "in" / "apple").mkdir(parents=True) or root / "in", "hold no images"),
    ],
)
def test_bad_folders(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        Folder(make(tmp_path), 16)


def test_a_pack_is_made_once_and_again_when_the_listing_changes(dish_copy, monkeypatch):
    made = []
    original = Packed._write
    monkeypatch.setattr(Packed, "_write", lambda self, *rest: (made.append(1), original(self, *rest))[1])
    first = everything(Packed(dish_copy, 16))
    assert torch.equal(everything(Packed(dish_copy, 16))[0], first[0])
    assert len(made) == 1
    (dish_copy / "soup" / "00011.jpg").unlink()
    assert len(Packed(dish_copy, 16)) == 95
    assert len(made) == 2
    (dish_copy.with_name("train.packed") / "index.json").write_text("{")
    assert len(Packed(dish_copy, 16)) == 95
    assert len(made) == 3
    assert sorted(path.name for path in dish_copy.parent.glob("[!.]*")) == ["train", "train.packed"]


def test_dishes_are_drawn_once_below_their_root_only(tmp_path):
    root = tmp_path / "drawn"
    images = Synthetic(root / "train", 16, root=root, per_class=2, factor=3)
    assert len(images) == 8 * 6
    assert len(Synthetic(root / "test", 16, root=root, per_class=2)) == 8 * 2
    (root / "train" / "soup" / "00005.jpg").unlink()
    assert len(Synthetic(root / "train", 16, root=root, per_class=2, factor=3)) == 8 * 6 - 1
    with pytest.raises(DataError, match="no such folder"):
        Synthetic(tmp_path / "phtos", 16, root=root)


def test_dishes_are_the_same_on_every_machine_and_differ_by_split(tmp_path):
    for name in ("a/train", "b/train", "a/test"):
        draw_set(tmp_path / name, 16, 2)
    sets = [everything(Folder(tmp_path / name, 16))[0] for name in ("a/train", "b/train", "a/test")]
    assert torch.equal(sets[0], sets[1])
    assert not torch.equal(sets[0], sets[2])


def test_dishes_can_be_told_apart(dishes):
    """The nearest class mean of coarse pixels is the right one mostly: labels mean something."""
    pixels, labels = everything(Folder(dishes / "train", 16))
    probes, truth = everything(Folder(dishes / "test", 16))
    means = torch.stack([pixels[labels == label].float().mean(0) for label in range(8)])
    nearest = torch.cdist(probes.float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == truth).float().mean() > 0.4  # chance is 0.125


def test_rgb_round_trip_is_exact():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    codec = RGB(16)
    encoded = codec.encode(values)
    assert (encoded.min().item(), encoded.max().item()) == (-1, 1)
    assert torch.equal(codec.decode(encoded), values)
    assert codec.decode(torch.tensor([[[[-5.0, 5.0]]]])).flatten().tolist() == [0, 255]

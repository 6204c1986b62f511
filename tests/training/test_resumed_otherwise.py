"""A run that is resumed with other settings: counts go on from where they were, and what does not compare is not."""

import json
import shutil

import pytest

import train
from foodgen.builders.training import make_session
from foodgen.core import config
from foodgen.core.errors import CheckpointError, ConfigError, DataError
from foodgen.core.files import read_jsonl
from foodgen.core.settings import Config
from foodgen.metrics.fid import FID
from foodgen.training.checkpoint import Checkpoints, read_meta
from foodgen.training.manifest import seal_files
from tests.runs import last, run_of, score_by_colours


@pytest.fixture
def scored(tiny, monkeypatch):
    """Arguments of a run that validates at steps 2, 4, ..., 12 by numbers that a test gives."""
    score_by_colours(monkeypatch)

    def arguments(values):
        rest = iter(values)
        monkeypatch.setattr(FID, "__call__", lambda self, inputs: {"fid": next(rest)})
        return [*tiny, "train.val_step=2", "train.val_count=16", "train.val_metrics=[fid]"]

    return arguments


def best_of(run):
    return Checkpoints(run / "checkpoints", 3).best().name[-2:]


def test_images_are_counted_at_each_batch_size(tiny, tmp_path):
    train.main([*tiny, "train.steps=6"])
    train.main([*tiny, "data.train_batch_size=4", "train.checkpoint_path=latest"])
    assert read_meta(last(tmp_path))["images"] == 6 * 10 + 6 * 4
    rows = read_jsonl(run_of(tmp_path) / "metrics.jsonl")
    assert [(row["step"], row["images"]) for row in rows if "images" in row][-2:] == [(10, 76), (12, 84)]


def test_the_best_by_another_count_is_not_compared(scored, tmp_path):
    """FID of 16 images and of 24 have other biases: the first validation after the change is the best so far."""
    train.main([*scored([5, 3, 4]), "train.steps=6"])
    assert best_of(run_of(tmp_path)) == "04"
    train.main([*scored([9, 8, 9]), "train.val_count=24", "train.checkpoint_path=latest"])
    assert best_of(run_of(tmp_path)) == "10"


def test_the_best_of_the_same_kind_is_compared(scored, tmp_path):
    train.main([*scored([5, 3, 4]), "train.steps=6"])
    train.main([*scored([9, 8, 9]), "train.checkpoint_path=latest"])
    assert best_of(run_of(tmp_path)) == "04"


def test_a_branch_has_a_best_of_its_own(scored, tmp_path):
    train.main([*scored([5, 3, 4]), "train.steps=6"])
    source = last(tmp_path)
    train.main([*scored([9, 8, 9]), "exp.run=branch", f"train.checkpoint_path={source}"])
    assert best_of(run_of(tmp_path, "branch")) == "10"


def test_what_could_not_be_saved_is_not_the_best(scored, tmp_path, monkeypatch):
    """A later one, worse than that and better than the rest, is marked."""
    save, failed = Checkpoints.save, []

    def fails_once(self, checkpoint, best=False):
        if best and checkpoint.meta["step"] == 4:
            failed.append(4)
            raise CheckpointError("the disk is full")
        return save(self, checkpoint, best)

    monkeypatch.setattr(Checkpoints, "save", fails_once)
    train.main(scored([9, 3, 7, 5, 8, 8]))
    assert failed == [4]
    assert best_of(run_of(tmp_path)) == "08"


def test_memorisation_wants_other_images_than_the_training_ones(tiny, dishes):
    """Each would be its own nearest neighbour, and no image could ever be nearer."""
    own = [f"data.input_val_dir={dishes / 'train'}", "train.val_count=16", "train.val_metrics=[pixels/memorisation]"]
    with pytest.raises(ConfigError, match="memorisation needs the training images, and other ones"):
        make_session(config.load([*tiny, *own], Config))


@pytest.mark.parametrize(("spoilt", "message"), [("folder", "photos"), ("class", "photos has no image of class")])
def test_photos_to_reconstruct_are_looked_for_before_training(small, spoilt, message, plates, tmp_path):
    """Not at the first validation, hours later."""
    photos = shutil.copytree(plates / "test", tmp_path / "photos")
    shutil.rmtree(photos if spoilt == "folder" else next(photos.iterdir()))
    for name in (path.name for path in (plates / "test").iterdir()) if spoilt == "class" else ():
        (photos / name).mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        make_session(config.load(small("small/upsampler", f"data.input_val_dir={photos}"), Config))


@pytest.mark.parametrize("name", ["best", "validated", "minutes"])
def test_a_checkpoint_that_lacks_what_resuming_needs_is_refused(tiny, tmp_path, name):
    train.main(tiny)
    folder = last(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    del meta[name]
    (folder / "meta.json").write_text(json.dumps(meta))
    seal_files(folder)
    with pytest.raises(CheckpointError, match=name):
        train.main([*tiny, f"train.checkpoint_path={folder}", "train.steps=14"])

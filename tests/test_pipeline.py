"""The door for programs: load a run, sample, score."""

import numpy as np
import pytest
import torch
from PIL import Image

import foodgen
import inference
import train
from foodgen.core.config import to_yaml
from foodgen.core.errors import CheckpointError, ConfigError, DataError
from foodgen.core.types import MetricInputs
from foodgen.data.folder import Folder
from foodgen.metrics.kid import KID
from tests.conftest import ROOT
from tests.runs import Colours, pixels, run_of, score_by_colours


@pytest.fixture(scope="module")
def run(tmp_path_factory, dishes):
    """A tiny denoiser's run."""
    folder = tmp_path_factory.mktemp("pipeline")
    arguments = [
        f"exp.config_path={ROOT / 'tests' / 'tiny.yaml'}",
        f"exp.exp_dir={folder / 'runs'}",
        f"data.input_train_dir={dishes / 'train'}",
        f"data.input_val_dir={dishes / 'test'}",
        "exp.use_wandb=false",
        "train.val_count=0",
    ]
    train.main(arguments)
    return folder, arguments


def test_a_runs_folder_gives_what_inference_gives(run):
    folder, arguments = run
    pipeline = foodgen.load(run_of(folder), device="cpu", batch_size=3)
    more = ["train.checkpoint_path=latest", "inference.count=16", "inference.metrics=[]", "inference.seed=4"]
    inference.main([*arguments, *more])
    written = [pixels(path) for path in sorted((run_of(folder) / "images").rglob("*.png"), key=lambda path: path.stem)]
    assert torch.equal(pipeline.sample_tensor(count=16, seed=4), torch.stack(written))


def test_images_are_of_the_classes_asked_for_and_repeat(run):
    pipeline = foodgen.load(run_of(run[0]))
    images = pipeline.sample(classes=pipeline.classes[2:4], count=4, seed=1)
    assert all(isinstance(image, Image.Image) and image.size == (16, 16) for image in images)
    again = pipeline.sample(classes=pipeline.classes[2:4], count=4, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))
    assert len(pipeline.sample()) == len(pipeline.classes) == 8
    other = pipeline.sample(classes=pipeline.classes[2:4], count=4, seed=2)
    assert not np.array_equal(images[0], other[0])
    assert pipeline.labels(pipeline.classes[2:4]) == [2, 3]


def test_steps_and_guidance_are_for_one_call(run):
    pipeline = foodgen.load(run_of(run[0]))
    before = pipeline.sample_tensor(seed=1)
    assert not torch.equal(pipeline.sample_tensor(seed=1, steps=2), before)
    assert torch.equal(pipeline.sample_tensor(seed=1), before)
    assert "steps" in to_yaml(pipeline.config)


def test_scores_are_of_the_reference(run, dishes, monkeypatch):
    score_by_colours(monkeypatch)
    pipeline = foodgen.load(run_of(run[0]))
    own = torch.stack([pixels(path) for path in sorted((dishes / "test").rglob("*.jpg"))])
    assert pipeline.score(own, dishes / "test")["fid"] == pytest.approx(0, abs=1e-3)
    generated = pipeline.sample(count=16)
    found = pipeline.score(generated, dishes / "test", metrics=["fid", "coverage"])
    assert found.keys() == {"fid", "coverage", "density"}
    assert found["fid"] > 1


def test_scores_by_class_want_labels(run, dishes, monkeypatch):
    """With them KID is that of inference.py, class by class; without them all, real ones too, are of one class."""
    score_by_colours(monkeypatch)
    pipeline = foodgen.load(run_of(run[0]))
    files = sorted((dishes / "test").rglob("*.jpg"))
    images, names = torch.stack([pixels(path) for path in files]), [path.parent.name for path in files]
    real, colours = Folder(dishes / "test", 16), Colours(None)
    features, known = colours(images), torch.tensor([real.classes.index(name) for name in names])
    for labels, number in ((names, known), (None, torch.zeros_like(known))):
        inputs = MetricInputs(features, number, features, number, lambda: iter(()))
        found = pipeline.score(images, dishes / "test", ["kid"], labels=labels)
        assert found["kid"] == pytest.approx(KID()(inputs)["kid"], abs=1e-3)
    for labels, message in ((["soup"], "labels: 1 are not one for each of 32"), (["sup"] * 32, "did you mean 'soup'")):
        with pytest.raises(ConfigError, match=message):
            pipeline.score(images, dishes / "test", labels=labels)
    with pytest.raises(ConfigError, match="labels: classifier/label_accuracy needs the classes"):
        pipeline.score(images, dishes / "test", ["classifier/label_accuracy"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.sample(classes=["piza"]), ConfigError, "no class is named 'piza'; did you mean 'pizza'"),
        (lambda p: p.sample(classes=[]), ConfigError, "no class is given"),
        (lambda p: p.score(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "nowhere"), DataError, "reference: nowhere"),
    ],
)
def test_mistakes_are_named(run, call, error, message):
    with pytest.raises(error, match=message):
        call(foodgen.load(run_of(run[0])))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nothing: there is no such checkpoint"):
        foodgen.load(tmp_path / "nothing")


def test_the_shipped_generator_samples_its_classes():
    pipeline = foodgen.load(ROOT / "checkpoints" / "gan", device="cpu")
    assert pipeline.config.sampler["name"] == "one_shot"
    images = pipeline.sample_tensor(["pizza", "edamame"], count=8)
    assert images.shape == (8, 3, 64, 64)
    green = images.float().mean(dim=(2, 3))[:, 1] - images.float().mean(dim=(2, 3))[:, 0]
    assert green[:4].mean() > green[4:].mean()  # edamame comes before pizza, and is greener


def test_a_trajectory_ends_with_the_sample(run):
    folder, _ = run
    pipeline = foodgen.load(run_of(folder), device="cpu")
    assert pipeline.settings["steps"] == pipeline.config.sampler["steps"]
    names = pipeline.classes[:2]
    shown = list(pipeline.trajectory(names, seed=3, count=4, steps=5))
    sampled = pipeline.sample(names, seed=3, count=4, steps=5)
    assert len(shown) == 6
    assert [np.asarray(image).tolist() for image in shown[-1]] == [np.asarray(image).tolist() for image in sampled]


def test_interpolation_ends_at_the_first_images_of_both_seeds(run):
    folder, _ = run
    pipeline = foodgen.load(run_of(folder), device="cpu")
    first, second = pipeline.classes[1], pipeline.classes[5]
    images = pipeline.interpolate((first, second), (3, 4), [0.0, 0.5, 1.0])
    for image, name, seed in ((images[0], first, 3), (images[2], second, 4)):
        (end,) = pipeline.sample([name], seed=seed)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(end)).max() <= 1
    assert np.abs(np.asarray(images[1]).astype(int) - np.asarray(images[0])).max() > 1


def test_variations_begin_with_the_image_itself(run):
    folder, _ = run
    pipeline = foodgen.load(run_of(folder), device="cpu")
    name = pipeline.classes[2]
    image = pipeline.sample([name], seed=5, count=3)[2]
    same, near, far = (pipeline.variations(name, 5, 2, 2, strength) for strength in (0.0, 0.2, 1.0))
    assert np.abs(np.asarray(same[1]).astype(int) - np.asarray(image)).max() <= 1
    change = [np.abs(np.asarray(one[1]).astype(int) - np.asarray(image)).mean() for one in (near, far)]
    assert 0 < change[0] < change[1]


def test_a_setting_that_there_is_not_is_named(run):
    folder, _ = run
    pipeline = foodgen.load(run_of(folder), device="cpu")
    with pytest.raises(ConfigError, match="step: there is no such setting; did you mean 'steps'"):
        pipeline.sample(step=3)
    with pytest.raises(ConfigError, match="truncation"):
        pipeline.sample(truncation=0.5)

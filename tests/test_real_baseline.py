"""The real-data baseline: real images in place of generated ones, and distances of generated ones to them."""

import shutil

import numpy as np
import pytest
import torch

import inference
from foodgen.data.folder import Folder
from foodgen.evaluation.scoring import disjoint_subsets
from foodgen.metrics.fid import frechet_distance
from tests.runs import Colours, metrics_of, run_of


def test_the_baseline_is_what_real_training_images_score(trained, tmp_path, dishes):
    inference.main([*trained, "inference.baseline_draws=3"])
    real_baseline = metrics_of(run_of(tmp_path))["real_baseline_by_subset"]["fid"]
    assert len(real_baseline) == 3
    images = Folder(dishes / "train", 16)
    draws = disjoint_subsets(images, [label for label in range(8) for _ in range(4)], 5)
    assert len(draws) == 3  # of 12 images a class no more than three times 4
    assert len({index for draw in draws for index in draw}) == 96
    for number, draw in enumerate(draws):
        as_images = tmp_path / f"draw-{number}"
        for index in draw:
            source = images.listing.folder / images.listing.files[index]
            (as_images / source.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, as_images / source.parent.name)
        inference.main([*trained, f"inference.images={as_images}", "inference.baseline_draws=0"])
        assert metrics_of(tmp_path / f"draw-{number}.scores")["fid"] == pytest.approx(real_baseline[number], rel=1e-4)
        assert metrics_of(tmp_path / f"draw-{number}.scores")["image_format"] == "jpg"


def test_training_images_as_the_reference_are_compared_with_the_rest_of_them(trained, tmp_path, dishes):
    """And generated images with all of them: no image is on both sides, which would flatter the baseline."""
    inference.main([*trained, f"data.input_val_dir={dishes / 'train'}", "inference.baseline_draws=2"])
    found = metrics_of(run_of(tmp_path))
    images, colours = Folder(dishes / "train", 16), Colours(None)
    expected = []
    for draw in disjoint_subsets(images, [label for label in range(8) for _ in range(4)], 2):
        rest = [index for index in range(96) if index not in draw]
        expected.append(frechet_distance(colours(images.batch(draw)[0]), colours(images.batch(rest)[0])))
    assert found["real_baseline_by_subset"]["fid"] == pytest.approx(expected, rel=1e-4)
    assert (found["reference_count"], found["real_baseline_reference_count"]) == (96, 64)
    assert "fid_to_training" not in found  # fid itself is that


def test_distances_to_training_images_tell_copies(trained, tmp_path, dishes):
    """Training images themselves are nearer to training images than to held-out ones."""
    images = Folder(dishes / "train", 16)
    copied = tmp_path / "copied"
    for index, name in enumerate(images.listing.files):
        if index % 12 < 4:
            (copied / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(images.listing.folder / name, copied / name)
    inference.main([*trained, f"inference.images={copied}", "inference.baseline_draws=3"])
    found = metrics_of(tmp_path / "copied.scores")
    draws = disjoint_subsets(images, [label for label in range(8) for _ in range(4)], 3)
    colours = Colours(None)
    made = colours(torch.stack([images[index][0] for index in range(96) if index % 12 < 4]))
    expected = [frechet_distance(made, colours(images.batch(draw)[0])) for draw in draws]
    assert found["fid_to_training"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert "kid_to_training" in found


def test_why_there_is_no_baseline_is_told(trained, tmp_path, dishes, caplog):
    inference.main([*trained, "data.input_train_dir=nowhere"])
    assert "no real-data baseline: data.input_train_dir: nowhere has no images" in caplog.text
    assert "real_baseline" not in metrics_of(run_of(tmp_path))
    inference.main([*trained, "inference.baseline_draws=4"])
    assert "the real-data baseline is of 3 subsets, not 4" in caplog.text
    own = [*trained, f"data.input_val_dir={dishes / 'train'}"]
    inference.main([*own, "inference.count=72"])  # a third would be left of 96 to compare them with
    assert "real_baseline" not in metrics_of(run_of(tmp_path))

"""Scoring as a user does it: seeds, baselines, folders of images, other averages, sweeps, visualisations."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import inference
import train
from foodgen.builders.pipeline import weights_of
from foodgen.builders.scoring import spaces_trained_against
from foodgen.commands.inference import line_of
from foodgen.core import config
from foodgen.core.errors import CheckpointError, ConfigError, UserError
from foodgen.core.randomness import Noise
from foodgen.core.settings import Config
from foodgen.data.folder import Folder
from foodgen.evaluation.inference import Inference
from foodgen.evaluation.sweep import nested, points_of
from foodgen.evaluation.visualisations import COLUMNS, InterpolatedNoise
from foodgen.training.checkpoint import read_average
from tests.runs import last, metrics_of, run_of


def test_seeds_give_a_mean_and_a_spread(trained, tmp_path, capsys):
    single = []
    for seed in (4, 5, 6):
        inference.main([*trained, f"inference.seed={seed}"])
        single.append(metrics_of(run_of(tmp_path))["fid"])
    inference.main([*trained, "inference.seed=4", "inference.seeds=3"])
    found = metrics_of(run_of(tmp_path))
    assert found["by_seed"]["fid"] == pytest.approx(single)
    assert found["fid"] == pytest.approx(np.mean(single))
    assert found["deviation"]["fid"] == pytest.approx(np.std(single, ddof=1))
    assert "over 3 seeds" in capsys.readouterr().out
    assert found["evaluations"] == 2 * 3  # three steps of Euler, guidance looking twice at each


def test_a_folder_of_drawn_images_scores_as_their_drawing_did(trained, tmp_path):
    inference.main(trained)
    drawn = run_of(tmp_path)
    inference.main([*trained, f"inference.images={drawn / 'images'}", f"inference.output_dir={tmp_path / 'again'}"])
    assert metrics_of(tmp_path / "again")["fid"] == pytest.approx(metrics_of(drawn)["fid"], rel=1e-6)
    again = [argument for argument in trained if "overwrite" not in argument]
    with pytest.raises(ConfigError, match="exists already"):
        inference.main([*again, f"inference.images={drawn / 'images'}", f"inference.output_dir={tmp_path / 'again'}"])
    with pytest.raises(UserError, match=r"inference\.images: .*nowhere: there is no such folder"):
        inference.main([*trained, "inference.images=nowhere"])
    shutil.rmtree(drawn / "images" / "soup")
    with pytest.raises(UserError, match="has 8 classes, training has 7; they differ in soup"):
        inference.main([*trained, f"inference.images={drawn / 'images'}"])


def test_other_spaces_and_the_nearest_training_images(trained, tmp_path, dishes):
    classifier = [argument for argument in trained if argument.startswith(("exp.exp_dir", "data."))]
    train.main(
        [
            "exp.config_path=configs/classifier.yaml",
            *classifier,
            *["exp.run=spec", "exp.use_wandb=false", "data.image_size=16", "train.steps=20"],
            *["data.train_batch_size=16", "exp.device=cpu"],
            *["objective.model.widths=[8,16]", "objective.model.blocks=1", "train.val_step=20"],
        ]
    )
    expected = "[fid,pixels/memorisation,classifier/kid,classifier/label_accuracy]"
    judged = [*trained, "spaces.classifier.name=classifier", f"spaces.classifier.path={tmp_path / 'runs' / 'spec'}"]
    inference.main([*judged, f"inference.metrics={expected}"])
    found = metrics_of(run_of(tmp_path))
    assert {"pixels/nearer_than_real", "classifier/kid_error", "classifier/real_label_accuracy"} <= {*found}
    details = json.loads((run_of(tmp_path) / "details.json").read_text())
    assert len(details["classifier/label_accuracy_by_class"]["soup"]) == 2
    pairs = details["pixels/nearest_pairs"]
    drawn = sorted((run_of(tmp_path) / "images").glob("*/*.png"))
    images = Folder(dishes / "train", 16)
    made, real, distance = pairs[0]
    with Image.open(drawn[made]) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert distance == pytest.approx(((pixels.float() - images[real][0].float()) / 255).norm().item(), abs=1e-3)
    assert (run_of(tmp_path) / "pixels-nearest_pairs.png").is_file()
    with pytest.raises(
        ConfigError, match=r"spaces\.clasifier: there is no such feature space; did you mean 'classifier'"
    ):
        inference.main([*judged, "inference.metrics=[clasifier/fid]"])
    with pytest.raises(ConfigError, match="label_accuracy needs a classifier's features"):
        inference.main([*judged, "inference.metrics=[pixels/label_accuracy]"])


def test_unaveraged_weights_are_the_networks_own(trained, tmp_path):
    raw, average = weights_of(last(tmp_path), 0), weights_of(last(tmp_path), None)
    assert {*raw} == {*average} == {*read_average(last(tmp_path))}
    assert any(not torch.equal(raw[name], average[name]) for name in raw)
    inference.main([*trained, "inference.ema_length=0"])
    assert metrics_of(run_of(tmp_path))["ema_length"] == 0
    with pytest.raises(CheckpointError, match="holds no snapshots"):
        inference.main([*trained, "inference.ema_length=0.1"])


def test_a_sweep_scores_every_point_and_goes_on_where_it_was_cut(trained, tmp_path, monkeypatch, capsys):
    swept = [*trained, "inference.sweep={guidance.scale: [1.0, 2.0], sampler.steps: [2, 3]}"]
    inference.main([*trained, "guidance.scale=2.0", "sampler.steps=3"])
    single = metrics_of(run_of(tmp_path))["fid"]
    score, calls = Inference.score, []

    def cut(self, **where):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, **where)

    monkeypatch.setattr(Inference, "score", cut)
    with pytest.raises(KeyboardInterrupt):
        inference.main(swept)
    inference.main(swept)
    assert len(calls) == 5  # two, the cut one, and the two that were left
    rows = [json.loads(line) for line in (run_of(tmp_path) / "sweep.jsonl").read_text().splitlines()]
    assert [tuple(row["point"].values()) for row in rows] == [(1.0, 2), (1.0, 3), (2.0, 2), (2.0, 3)]
    assert rows[-1]["fid"] == pytest.approx(single)
    assert {path.name for path in run_of(tmp_path).glob("sweep*.png")} == {
        "sweep-guidance.scale.png",
        "sweep-sampler.steps.png",
    }
    assert len(list((run_of(tmp_path) / "sweep").glob("*.png"))) == 4
    best = min(rows, key=lambda row: row["fid"])["point"]
    assert f"best: {best}" in capsys.readouterr().out
    inference.main([*swept, "inference.seed=1"])  # other images: nothing is taken for done
    assert len(calls) == 9


def test_sweeps_keep_off_the_test_set_and_tell_mistakes_first(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(Inference, "score", lambda *_: pytest.fail("drew"))
    with pytest.raises(ConfigError, match=r"not chosen on test images; give data\.input_val_dir=.*val"):
        inference.main([*trained, "inference.sweep={data.input_val_dir: [somewhere/test]}"])
    for sweep, message in (
        ("{guidance.scale: [1], guidance.scael: [1]}", r"guidance\.scael"),
        ("{sampler.steps: [2, zero]}", r"sampler\.steps"),
        ("{train.stepz: [2]}", r"train\.stepz"),
    ):
        with pytest.raises(ConfigError, match=message):
            inference.main([*trained, f"inference.sweep={sweep}"])


def test_points_are_all_combinations_or_as_listed():
    assert points_of({"a.b": [1, 2], "c": [3]}) == [{"a.b": 1, "c": 3}, {"a.b": 2, "c": 3}]
    assert points_of([{"a": 1}, {"a": 2, "b": 3}]) == [{"a": 1}, {"a": 2, "b": 3}]
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    with pytest.raises(ConfigError, match=r"a\.b lies within"):
        nested({"a": 1, "a.b": 2})


def test_noise_between_two_noises_is_normal_and_ends_at_both():
    ends = [Noise(3, [number] * COLUMNS, (500,)) for number in (0, 1)]
    noise = InterpolatedNoise(ends, torch.linspace(0, 1, COLUMNS))()
    first, second = Noise(3, range(2), (500,))()
    torch.testing.assert_close(noise[0], first)
    torch.testing.assert_close(noise[COLUMNS - 1], second, atol=1e-6, rtol=0)
    assert noise.std(dim=1).sub(1).abs().max() < 0.15
    nearer = (noise[1:COLUMNS] - noise[: COLUMNS - 1]).norm(dim=1)
    assert nearer.max() < 1.2 * nearer.min()  # even steps


def test_exhibits_are_painted_and_end_where_the_images_are(trained, tmp_path):
    drawn = [*trained, "inference.metrics=[]", "inference.count=8"]
    inference.main([*drawn, "inference.visualisations=[trajectory,interpolation]"])
    shown = np.load(run_of(tmp_path) / "trajectory.npz")
    assert shown["images"].shape == (8 * COLUMNS, 3, 16, 16)
    for row, path in enumerate(sorted((run_of(tmp_path) / "images").glob("*/*.png"))):
        with Image.open(path) as image:
            last_guess = shown["images"][row * COLUMNS + COLUMNS - 1].transpose(1, 2, 0)
            assert np.abs(np.array(image).astype(int) - last_guess).max() <= 1  # Euler ends at its last guess
    assert (run_of(tmp_path) / "interpolation.png").is_file()


def test_spaces_that_training_used_are_told(monkeypatch):
    def read(path, *more):
        return config.load([f"exp.config_path=configs/{path}.yaml", *more], Config)

    assert spaces_trained_against(read("projected_gan")) == ["efficientnet"]
    assert spaces_trained_against(read("hybrid_aligned")) == ["efficientnet"]
    assert spaces_trained_against(read("stylegan2")) == []
    row = {"efficientnet/fid": 2.0, "fid": 3.0, "trained_against": ["efficientnet"]}
    assert "flatters" in line_of("efficientnet/fid", row)
    assert "flatter" not in line_of("fid", row)


def test_a_retrained_model_is_scored_anew_and_a_torn_row_is_left_out(trained, tmp_path, capsys):
    swept = [*trained, "inference.sweep={sampler.steps: [2]}"]
    path = run_of(tmp_path) / "sweep.jsonl"
    inference.main(swept)
    path.write_text(path.read_text() + '{"point": {"sampler.st')
    inference.main([*swept, "data.val_batch_size=5", "exp.use_wandb=true"])  # scores do not depend on these
    assert len(path.read_text().splitlines()) == 1
    for name in ("checkpoints", "metrics.jsonl"):
        found = run_of(tmp_path) / name
        shutil.rmtree(found) if found.is_dir() else found.unlink()
    train.main([*trained[:5], "train.steps=12", "exp.seed=7"])
    inference.main(swept)
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["point"] == second["point"]
    assert first["fid"] != second["fid"]


def test_a_scored_folder_is_never_taken_for_a_drawing(trained, tmp_path, dishes):
    mine = tmp_path / "mine"
    shutil.copytree(dishes / "test", mine / "images")
    inference.main([*trained, f"inference.images={mine / 'images'}", f"inference.output_dir={mine}"])
    with pytest.raises(ConfigError, match="was not made by inference"):
        inference.main([*trained, f"inference.output_dir={mine}"])
    assert len(list((mine / "images").glob("*/*.jpg"))) == 32
    inference.main(trained)
    with pytest.raises(ConfigError, match="holds sampled images and their scores"):
        inference.main([*trained, f"inference.images={mine / 'images'}", f"inference.output_dir={run_of(tmp_path)}"])


def test_a_classifier_is_measured_without_drawing(trained, tmp_path):
    shared = [argument for argument in trained if argument.startswith(("exp.exp_dir", "data."))]
    config = ["exp.config_path=configs/classifier.yaml", *shared, "exp.run=spec", "exp.use_wandb=false"]
    config += ["data.image_size=16", "exp.device=cpu"]
    network = ["objective.model.widths=[8,16]", "objective.model.blocks=1"]
    train.main([*config, *network, "train.steps=3", "data.train_batch_size=16"])
    inference.main([*config, "train.checkpoint_path=latest", "inference.metrics=[accuracy]"])
    assert 0 <= metrics_of(run_of(tmp_path, "spec"))["accuracy"] <= 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["inference.sweep={objective.class_dropout: [0.1]}"], "objective.class_dropout: inference takes it from"),
        (["inference.sweep={inference.metrics: [[fid], [kid]]}"], r"inference\.metrics cannot be swept"),
        (["inference.metrics=[fdi]"], r"inference\.metrics\.0: no metric is named 'fdi'; did you mean 'fid'"),
        (["data.input_train_dir=nowhere", "inference.metrics=[pixels/memorisation]"], "needs the training images"),
        (["inference.metrics=[fid_infinity]"], r"fid_infinity: a line cannot be drawn through parts of 32 images"),
    ],
)
def test_more_mistakes(trained, overrides, message):
    with pytest.raises(UserError, match=message):
        inference.main([*trained, *overrides])

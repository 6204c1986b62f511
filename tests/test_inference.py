"""Drawing, scoring and exporting, through the scripts' own main functions."""

import json
import weakref

import pytest
import torch
from safetensors.torch import load_file

import export
import inference
import train
from foodgen.builders.inference import make_inference
from foodgen.core import config
from foodgen.core.errors import CheckpointError, ConfigError, UserError
from foodgen.core.settings import Config
from foodgen.evaluation.sampling import check_proportions, matching_labels
from foodgen.metrics.fid import frechet_distance
from foodgen.training.checkpoint import read_average, read_meta
from tests.conftest import ROOT
from tests.runs import Colours, last, pixels, run_of, score_by_colours
from tests.test_recipes import stop_at


def test_scores_are_those_of_the_pictures_on_disk(tiny, tmp_path, monkeypatch, dishes):
    score_by_colours(monkeypatch)
    train.main([*tiny, "train.steps=60", "optimizers.model.lr=0.003"])
    inference.main([*tiny, "train.checkpoint_path=latest", "inference.metrics=[fid]"])
    found = json.loads((run_of(tmp_path) / "metrics.json").read_text())
    drawn = torch.stack([pixels(path) for path in sorted((run_of(tmp_path) / "images").glob("*/*.png"))])
    real = torch.stack([pixels(path) for path in sorted((dishes / "test").glob("*/*.jpg"))])
    expected = frechet_distance(Colours(None)(drawn), Colours(None)(real))
    assert found["fid"] == pytest.approx(expected, rel=1e-5)
    assert len(list((run_of(tmp_path) / "images" / "soup").iterdir())) == 4


def test_labels_match_a_reference_with_unequal_classes():
    class Reference:
        classes, labels = ["a", "b", "c"], [0] * 4 + [1] * 2 + [2] * 6

        def __len__(self):
            return 12

    reference = Reference()
    assert matching_labels(12, reference) == reference.labels
    assert matching_labels(6, reference) == [0, 0, 1, 2, 2, 2]
    assert len(matching_labels(7, reference)) == 7
    check_proportions([0] * 331 + [1] * 168 + [2] * 501, reference, "count")  # of many images, to 2 % of each class
    with pytest.raises(ConfigError, match=r"class b would have 173 of 1000"):
        check_proportions([0] * 330 + [1] * 173 + [2] * 497, reference, "count")
    check_proportions(matching_labels(6, reference), reference, "count")
    with pytest.raises(ConfigError, match="count=6 "):
        check_proportions(matching_labels(7, reference), reference, "count")


def test_export_serves_as_a_checkpoint_and_as_a_start(tiny, tmp_path):
    train.main(tiny)
    export.main([*tiny, "train.checkpoint_path=latest", "export.shard_megabytes=0.02"])
    folder = run_of(tmp_path) / "export"
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert all(path.stat().st_size < 40_000 for path in shards)
    assert {tensor.dtype for tensor in load_file(shards[0]).values()} == {torch.bfloat16}
    average = read_average(last(tmp_path))
    for name, tensor in read_average(folder).items():
        torch.testing.assert_close(tensor, average[name], rtol=2**-8, atol=0)
    inference.main([*tiny, f"train.checkpoint_path={folder}"])
    assert train.main([*tiny, "exp.run=more", f"train.initial_weights={folder}", "train.steps=3"]) == 0
    with pytest.raises(ConfigError, match=r"initial_weights"):
        train.main([*tiny, "exp.run=wrong", f"train.checkpoint_path={folder}"])
    with pytest.raises(CheckpointError, match="exists already"):
        export.main([*tiny, "train.checkpoint_path=latest"])


def test_a_checkpoint_alone_is_enough_to_sample(tiny, tmp_path):
    train.main([*tiny, "objective.model.network.width=16", "objective.model.process.name=flow"])
    inference.main([*tiny, "train.checkpoint_path=latest"])  # the file says width 8 and edm
    assert json.loads((run_of(tmp_path) / "metrics.json").read_text())["generated_count"] == 32


def test_the_batch_size_moves_no_grey_level_by_more_than_one(tiny, tmp_path):
    train.main([*tiny, "train.steps=60", "optimizers.model.lr=0.003"])
    pictures = []
    for size in (16, 5):
        out = tmp_path / f"drawn-{size}"
        inference.main(
            [
                *[*tiny, "train.checkpoint_path=latest", "sampler.name=ancestral", "sampler.steps=20"],
                *[f"data.val_batch_size={size}", f"inference.output_dir={out}"],
            ]
        )
        files = sorted((out / "images").glob("*/*.png"))
        pictures.append(torch.stack([pixels(path) for path in files]))
    assert (pictures[0].int() - pictures[1].int()).abs().max() <= 1
    assert pictures[0].float().std() > 5


def test_inference_keeps_images_unless_asked(tiny, tmp_path):
    train.main(tiny)
    drawn = [*tiny, "train.checkpoint_path=latest", "inference.count=5", "inference.classes=[soup,pizza]"]
    inference.main(drawn)
    images = run_of(tmp_path) / "images"
    assert sorted(path.parent.name for path in images.glob("*/*.png")) == ["pizza"] * 2 + ["soup"] * 3
    with pytest.raises(ConfigError, match=r"holds images already.*overwrite"):
        inference.main(drawn)
    (images / "soup" / "stale.png").write_text("")
    inference.main([*drawn, "inference.overwrite=true", "inference.seed=1"])
    assert not (images / "soup" / "stale.png").exists()
    other = tmp_path / "mine"
    (other / "images").mkdir(parents=True)
    (other / "images" / "holiday.png").write_text("")
    with pytest.raises(ConfigError, match="was not made by inference"):
        inference.main([*drawn, "inference.overwrite=true", f"inference.output_dir={other}"])
    assert (other / "images" / "holiday.png").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inference.classes=[sup]", r"inference\.classes: no class is named 'sup'; did you mean 'soup'"),
        ("train.checkpoint_path=nowhere", "there is no such checkpoint"),
        ("inference.metrics=[fidd]", "no metric is named 'fidd'; did you mean 'fid'"),
    ],
)
def test_inference_mistakes(override, message, tiny):
    train.main(tiny)
    with pytest.raises(UserError, match=message):
        inference.main([*tiny, "train.checkpoint_path=latest", override])


def test_unequal_shares_are_refused_before_drawing(tiny, monkeypatch):
    train.main(tiny)
    monkeypatch.setattr("foodgen.builders.inference.make_scorer", lambda *_, **__: None)
    monkeypatch.setattr("foodgen.evaluation.sampling.SamplingLoop.batches", lambda *_: pytest.fail("drew"))
    wrong = [*tiny, "train.checkpoint_path=latest", "inference.metrics=[fid]", "inference.count=33"]
    with pytest.raises(
        ConfigError, match=r"inference\.count: class cookies would have 5 of 33 .* 4 of 32 .*inference\.count=32"
    ):
        inference.main(wrong)


@pytest.mark.parametrize("model", ["gan", "diffusion"])
def test_the_shipped_models_sample_food(model, tmp_path):
    """From the repository alone, in seconds; the same seed gives the same pictures."""
    shipped = ROOT / "checkpoints" / model
    names = read_meta(shipped)["classes"]
    assert len(names) == 101
    assert sum(path.stat().st_size for path in shipped.rglob("*.safetensors")) < 60e6
    pictures = []
    for name in ("a", "b"):
        few = ["inference.classes=[edamame,pizza]", "inference.count=8", "inference.metrics=[]", "exp.device=cpu"]
        inference.main(
            [f"exp.config_path={shipped / 'inference.yaml'}", *few, f"inference.output_dir={tmp_path / name}"]
        )
        files = sorted((tmp_path / name / "images").glob("*/*.png"))
        pictures.append(torch.stack([pixels(path) for path in files]).float())
    assert [path.parent.name for path in files] == ["edamame"] * 4 + ["pizza"] * 4
    assert torch.equal(*pictures)
    green = pictures[0][:, 1].mean(dim=(1, 2)) - pictures[0][:, 0].mean(dim=(1, 2))
    assert green[:4].mean() > green[4:].mean() + 5  # edamame are greener than pizza
    assert (pictures[0][0] - pictures[0][1]).abs().mean() > 10  # and no two are alike


@pytest.mark.parametrize("override", ["objective.class_dropout=0.5", "objective={name: denoising}", "ema.decay=0.5"])
def test_what_inference_would_ignore_is_refused(override, tiny):
    with pytest.raises(ConfigError, match=r"inference takes it from the checkpoint"):
        inference.main([*tiny, "train.checkpoint_path=latest", override])


def test_another_image_size_is_refused(tiny):
    train.main([*tiny, "train.val_count=0"])
    with pytest.raises(ConfigError, match=r"data\.image_size: 32, but .* was trained at 16"):
        inference.main([*tiny, "train.checkpoint_path=latest", "data.image_size=32"])


def test_a_checkpoint_has_many_names(tiny, tmp_path):
    train.main([*tiny, "train.val_count=0", "train.checkpoint_step=4"])
    few = ["inference.count=8", "inference.metrics=[]", "inference.overwrite=true"]
    found = []
    for name in ("latest", "best", run_of(tmp_path), last(tmp_path)):
        inference.main([*tiny, f"train.checkpoint_path={name}", *few])
        found.append(json.loads((run_of(tmp_path) / "metrics.json").read_text())["step"])
    assert found == [12] * 4


def test_a_run_is_resumed_by_its_own_configuration(tiny, tmp_path):
    train.main([*tiny, "train.val_count=0", "train.steps=6", "exp.run=first"])
    own = run_of(tmp_path, "first") / "config.yaml"
    train.main([f"exp.config_path={own}", "train.steps=12", "train.checkpoint_path=latest"])
    assert read_meta(last(tmp_path, "first"))["step"] == 12
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


def test_no_more_images_are_held_than_a_batch(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        train.main(tiny)
    score_by_colours(monkeypatch)
    scored = ["train.checkpoint_path=latest", "inference.count=320", "inference.metrics=[fid]"]
    made = make_inference(config.load([*tiny, *scored], Config))
    alive, most, sample = weakref.WeakSet(), [], made.sample

    def watched(seed):
        for indices, images in sample(seed):
            alive.add(images)
            most.append(len(alive))
            yield indices, images
            del images

    made.sample = watched
    assert made.run()["fid"] > 0
    assert len(most) == 20
    assert max(most) <= 2
    assert len(list((run_of(tmp_path) / "images").glob("*/*.png"))) == 320


def test_an_interrupted_inference_keeps_the_earlier_images(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        train.main(tiny)
    sampled = [*tiny, "train.checkpoint_path=latest", "inference.count=32"]
    inference.main(sampled)
    before = {path: path.read_bytes() for path in (run_of(tmp_path) / "images").glob("*/*.png")}
    made = make_inference(config.load([*sampled, "inference.overwrite=true", "inference.seed=5"], Config))
    sample = made.sample

    def cut(seed):
        yield next(sample(seed))
        raise KeyboardInterrupt

    made.sample = cut
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert before == {path: path.read_bytes() for path in (run_of(tmp_path) / "images").glob("*/*.png")}
    inference.main([*sampled, "inference.overwrite=true", "inference.seed=5"])
    assert before != {path: path.read_bytes() for path in (run_of(tmp_path) / "images").glob("*/*.png")}
    assert not (run_of(tmp_path) / "images.partial").exists()

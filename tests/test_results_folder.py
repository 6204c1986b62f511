"""The folder of an inference: nothing in it is silently replaced, and what is in it belongs together."""

import json
import shutil

import pytest

import inference
from foodgen.builders.pipeline import Pipeline
from foodgen.core.errors import ConfigError
from foodgen.evaluation.sampling import SamplingLoop
from foodgen.training.manifest import fingerprint
from tests.conftest import ROOT
from tests.runs import last, metrics_of, run_of

SCORES = ["inference.metrics=[fid,pixels/memorisation]", "inference.count=16"]


def files_of(folder):
    """What an inference has left in a folder, but for the training's own files."""
    ours = ["grid.png", "metrics.json", "details.json", "inference.yaml"]
    found = {name: (folder / name).read_bytes() for name in ours if (folder / name).is_file()}
    found |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("images/*/*.png")}
    return found | {path.name: path.read_bytes() for path in folder.glob("*nearest_pairs.png")}


def test_a_models_folder_is_not_written_to(trained, tmp_path):
    """Its inference.yaml is how to sample from it, and foodgen.load would take another for that."""
    model = shutil.copytree(ROOT / "checkpoints" / "gan", tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with pytest.raises(ConfigError, match="model holds a model; choose another folder"):
        inference.main([*trained, f"inference.output_dir={model}"])
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.parametrize("name", ["metrics.json", "grid.png"])
def test_files_of_somebody_else_stay(trained, tmp_path, name):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{name} was not made by inference\.py and stays"):
        inference.main([*trained, f"inference.output_dir={mine}"])
    assert [path.read_text() for path in mine.iterdir()] == ["mine"]


def test_an_interrupted_inference_leaves_the_earlier_one_whole(trained, tmp_path, monkeypatch):
    """Its images, scores and configuration are replaced when the new images are all there, and not before."""
    inference.main([*trained, *SCORES])
    before = files_of(run_of(tmp_path))
    assert {"metrics.json", "details.json", "pixels-nearest_pairs.png"} <= before.keys()
    batches = SamplingLoop.batches

    def interrupted(self, *arguments):
        yield next(batches(self, *arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SamplingLoop, "batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inference.main([*trained, *SCORES, "inference.seed=1", "data.val_batch_size=4"])
    assert files_of(run_of(tmp_path)) == before


def test_scores_of_earlier_images_go_with_them(trained, tmp_path):
    inference.main([*trained, *SCORES])
    earlier = files_of(run_of(tmp_path))
    inference.main([*trained, "inference.metrics=[]", "inference.count=8", "inference.seed=1"])
    now = files_of(run_of(tmp_path))
    assert earlier.keys() - now.keys() >= {"details.json", "pixels-nearest_pairs.png"}
    assert "fid" not in metrics_of(run_of(tmp_path))
    assert len([name for name in now if name.startswith("images/")]) == 8


def test_scores_without_images_are_not_replaced_unasked(trained, tmp_path):
    """As those of a model that makes none."""
    inference.main([*trained, *SCORES])
    shutil.rmtree(run_of(tmp_path) / "images")
    unasked = [argument for argument in trained if argument != "inference.overwrite=true"]
    with pytest.raises(ConfigError, match=r"metrics\.json exists already: add inference\.overwrite=true"):
        inference.main([*unasked, *SCORES])


def test_scores_name_the_weights_that_they_are_of(trained, tmp_path):
    inference.main([*trained, *SCORES])
    assert json.loads((run_of(tmp_path) / "metrics.json").read_text())["weights"] == fingerprint(last(tmp_path))


def test_the_spaces_of_a_codecs_training_flatter_too():
    """The cascade's upsampler was trained against EfficientNet, its first stage against nothing."""
    from foodgen.builders.scoring import spaces_trained_against
    from foodgen.core import config
    from foodgen.core.settings import Config

    given = config.load([f"exp.config_path={ROOT / 'checkpoints' / 'diffusion' / 'inference.yaml'}"], Config)
    pipeline = Pipeline(given, ROOT / "checkpoints" / "diffusion")
    assert spaces_trained_against(pipeline.config) == ["efficientnet"]

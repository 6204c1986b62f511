"""Checkpoints that are damaged or of something else: each is refused with one line, or an older one serves."""

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import export
import foodgen
import inference
import train
from foodgen.core.errors import CheckpointError
from foodgen.training.checkpoint import Checkpoints, read, read_meta, write
from foodgen.training.manifest import MANIFEST, seal_files
from foodgen.training.session import Session
from foodgen.training.trainer import Trainer
from tests.faults.refusals import refused
from tests.runs import digest, last, run_of
from tests.training.test_checkpoint import flip, made

FILES = ["weights.safetensors", "ema.safetensors", "training.pt", "meta.json", "config.yaml", "MANIFEST.json"]


# Damage that the manifest shows


@pytest.mark.parametrize("share", [0, 0.3, 0.9999])
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_found_and_named(name, share, tmp_path, caplog):
    """Whichever file ends early, at its start or at its last byte: it is named, and an older checkpoint serves."""
    checkpoints = Checkpoints(tmp_path, keep=5)
    for step in (1, 2):
        checkpoints.save(made(step))
    path = checkpoints.steps()[-1] / name
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    with pytest.raises(CheckpointError, match=name):
        read(path.parent)
    assert checkpoints.newest().name == "step-00000001"
    assert name in caplog.text


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_is_found(name, tmp_path):
    """Bits all over each file; in the manifest none changes what is read without being found."""
    write(tmp_path / "step-1", made(1))
    path = tmp_path / "step-1" / name
    content = path.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 40)):
        flip(path, at)
        try:
            again = read(path.parent)
        except CheckpointError as error:
            assert "step-1" in str(error)
        else:
            assert name == MANIFEST  # white space
            assert torch.equal(again.weights["a"], made(1).weights["a"])
        path.write_bytes(content)
    read(path.parent)


@pytest.mark.parametrize("door", ["resume", "inference", "export", "load"])
def test_an_explicit_path_to_a_damaged_checkpoint_is_an_error(door, doors, newest, tmp_path):
    """Damage is not passed over for a checkpoint that the user names, and nothing is left behind."""
    flip(newest / "ema.safetensors", -3)
    assert "step-00000004/ema.safetensors: differs from its manifest" in refused(doors[door], newest)
    for left in (run_of(tmp_path, "branch"), run_of(tmp_path, "sampled"), tmp_path / "exported"):
        assert not left.exists()


def test_inference_and_export_of_the_latest_pass_over_damage(newest, tiny, tmp_path, caplog):
    """`latest` is the newest whole checkpoint, for whatever it is wanted; a line says which one was passed over."""
    flip(newest / "weights.safetensors", -3)
    export.main([*tiny, "train.checkpoint_path=latest", f"export.output_dir={tmp_path / 'exported'}"])
    assert read_meta(tmp_path / "exported")["step"] == 2
    assert "passed over a damaged checkpoint" in caplog.text and "step-00000004/weights" in caplog.text


def test_an_empty_newest_folder_is_passed_over_in_training(newest, run, tiny, whole, caplog):
    """Training goes on from the checkpoint before, to the same weights."""
    for path in newest.iterdir():
        path.unlink()
    train.main([*tiny, "train.steps=4", "train.checkpoint_step=2", "train.checkpoint_path=latest"])
    assert "passed over" in caplog.text
    assert digest(newest) == digest(whole / "checkpoints" / "step-00000004")


@pytest.mark.parametrize("name", ["step-00000099", "../../elsewhere", "..", "", "/etc", "step-1/../..", "\udc80\n\0"])
def test_a_best_mark_that_points_nowhere_or_outside_is_not_followed(name, run, tmp_path, caplog):
    """The newest checkpoint is taken instead, with a warning; no folder outside the run is opened."""
    shutil.copytree(run / "checkpoints" / "step-00000002", tmp_path / "elsewhere")
    (run / "checkpoints" / "best.txt").write_bytes(name.encode(errors="surrogateescape"))
    assert Checkpoints(run / "checkpoints", 2).best() is None
    assert foodgen.load(run).meta["step"] == 4
    assert "best.txt names no checkpoint beside it" in caplog.text


def test_a_gans_checkpoint_is_refused_by_a_diffusion_training_and_its_sampler(small, tiny, tmp_path, newest):
    """The weights are told apart by name, the model by its kind, before any work. (The other way: test_gan_recipes.)"""
    train.main(small("small/dcgan", "exp.run=gan", "train.steps=1"))
    gan = last(tmp_path, "gan")
    options = ["data.image_size=32", f"train.checkpoint_path={gan}", "exp.run=branch"]
    folders = [argument for argument in small("small/dcgan") if argument.startswith(("data.input", "dataset"))]
    message = refused(lambda _: train.main([*tiny, *folders, *options]), gan)
    assert re.search(r"does not fit the configuration: it lacks model\..* more weights; it holds besides ", message)
    message = refused(lambda _: inference.main([*tiny, *folders, *options, "inference.metrics=[]"]), gan)
    assert "sampler.name: Euler samples from a denoiser" in message


def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path, monkeypatch, caplog):
    """The step that spoils the weights has a finite loss still: no checkpoint is overwritten by what it leaves."""
    original = Trainer.step

    def poisoned(self, step, images, labels):
        measured = original(self, step, images, labels)
        if step == 4:
            next(self.objective.parameters()).data.view(-1)[0] = float("inf")
        return measured

    monkeypatch.setattr(Trainer, "step", poisoned)
    monkeypatch.setattr(Session, "_validation_is_due", lambda self: False)
    train.main([*tiny, "train.steps=4", "train.checkpoint_step=2"])
    assert last(tmp_path).name == "step-00000002"
    assert re.search("step 4: .*weight is not finite: not saved", caplog.text)


def test_optimizers_of_another_training_are_refused(newest, doors):
    """training.pt may hold plain values and still not what is expected of it."""
    for content, message in (
        ([1, 2], "training.pt: holds no optimizers"),
        ({"optimizers": 3, "tracker": {}}, "its optimizers or averages are not those of the configuration"),
        ({"optimizers": {"model": [[]]}, "tracker": {}}, "its optimizers or averages are not those"),
    ):
        torch.save(content, newest / "training.pt")
        seal_files(newest)
        assert message in refused(doors["resume"], newest)


def test_an_export_vouches_for_the_averages_of_its_own_model(newest, doors, tmp_path):
    """Averages that are not of the weights beside them are not exported."""
    tensors = load_file(newest / "ema.safetensors")
    tensors.pop("network.first.weight")
    save_file(tensors, newest / "ema.safetensors")
    seal_files(newest)
    assert "its average is not one of its model: it lacks network.first.weight" in refused(doors["export"], newest)
    assert not (tmp_path / "exported").exists()

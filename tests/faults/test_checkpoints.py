"""Checkpoints that are damaged, forged or of something else: each is refused with one line that says why."""

import json
import os
import re
import shutil
import signal
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import export
import foodgen
import inference
import train
from foodgen.core.errors import CheckpointError, UserError
from foodgen.training import checkpoint as module
from foodgen.training.checkpoint import Checkpoints, read, read_average, read_meta, verify, write
from foodgen.training.manifest import MANIFEST, seal_files
from foodgen.training.session import Session
from foodgen.training.snapshots import Snapshots, average_of
from foodgen.training.trainer import Trainer
from tests.conftest import TINY
from tests.runs import digest, last, run_of
from tests.test_recipes import stop_at
from tests.training.test_checkpoint import flip, made

FILES = ["weights.safetensors", "ema.safetensors", "training.pt", "meta.json", "config.yaml", "MANIFEST.json"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dishes):
    """A tiny run with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("whole")
    train.main([*arguments_of(folder, dishes), "train.steps=4", "train.checkpoint_step=2"])
    return run_of(folder)


def arguments_of(folder, dishes):
    data = [f"data.input_train_dir={dishes / 'train'}", f"data.input_val_dir={dishes / 'test'}"]
    return [f"exp.config_path={TINY}", f"exp.exp_dir={folder / 'runs'}", *data]


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the tiny run that may be spoilt."""
    return shutil.copytree(whole, run_of(tmp_path))


@pytest.fixture
def newest(run):
    return run / "checkpoints" / "step-00000004"


@pytest.fixture
def doors(tiny, tmp_path):
    """Everything that opens a checkpoint by its path, by name."""

    def resume(path):
        train.main([*tiny, "train.steps=4", "exp.run=branch", f"train.checkpoint_path={path}"])

    def sample(path):
        few = ["inference.count=8", "inference.metrics=[]", "exp.run=sampled"]
        inference.main([*tiny, *few, f"train.checkpoint_path={path}"])

    def write_export(path):
        export.main([*tiny, f"train.checkpoint_path={path}", f"export.output_dir={tmp_path / 'exported'}"])

    return {"resume": resume, "inference": sample, "export": write_export, "load": foodgen.load}


def refused(call, path):
    """What a door says of a checkpoint: one line, as the command line prints it."""
    with pytest.raises(UserError) as caught:
        call(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700
    return str(caught.value)


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


# Forgeries under a manifest that is right


def rewrite(folder, **changes):
    """Change meta.json or config.yaml as somebody does who knows the manifest."""
    for name, content in changes.items():
        path = folder / {"meta": "meta.json", "config": "config.yaml"}[name]
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    seal_files(folder)


def with_meta(**changes):
    def spoil(folder):
        meta = json.loads((folder / "meta.json").read_text()) | changes
        rewrite(folder, meta={key: value for key, value in meta.items() if value != "nothing"})

    return spoil


def with_config(change):
    def spoil(folder):
        rewrite(folder, config=change((folder / "config.yaml").read_text()))

    return spoil


def with_tensors(change):
    """Change the weights of the averaged model and, alike, those of the objective's."""

    def spoil(folder):
        for name, prefix in (("ema.safetensors", ""), ("weights.safetensors", "model.")):
            tensors = load_file(folder / name)
            change(tensors, prefix + "network.first.weight")
            save_file(tensors, folder / name)
        seal_files(folder)

    return spoil


def with_header(length):
    def spoil(folder):
        for name in ("ema.safetensors", "weights.safetensors"):
            (folder / name).write_bytes(struct.pack("<Q", length) + (folder / name).read_bytes()[8:])
        seal_files(folder)

    return spoil


def with_manifest(change):
    def spoil(folder):
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return spoil


def linked(folder):
    shutil.move(folder / "ema.safetensors", folder.parent / "elsewhere")
    (folder / "ema.safetensors").symlink_to(folder.parent / "elsewhere")


EVERYWHERE = ["resume", "inference", "export", "load"]
BUILT = ["inference", "load"]  # where the checkpoint's own configuration says what is built
FITTED = ["resume", "inference", "load"]  # where a network takes the weights
CONSTRUCTED = "!!python/object/apply:os.mkdir [ran]\n"
FORGED = {
    "newer format": (with_meta(format=2), "is of format 2, this version reads 1", EVERYWHERE),
    "older format": (with_meta(format=0), "is of format 0, this version reads 1", EVERYWHERE),
    "no format": (with_meta(format="nothing"), "is of format None", EVERYWHERE),
    "meta is a list": (lambda f: rewrite(f, meta=[1]), "meta.json: a mapping of keys is expected", EVERYWHERE),
    "meta is nonsense": (lambda f: rewrite(f, meta="{'a"), "meta.json: Expecting", EVERYWHERE),
    "meta is deep": (lambda f: rewrite(f, meta="[" * 100_000), "meta.json: maximum recursion", EVERYWHERE),
    "no step": (with_meta(step="nothing"), "meta.json: step is missing", EVERYWHERE),
    "step is a word": (with_meta(step="four"), "meta.json: step cannot be 'four'", EVERYWHERE),
    "step below 0": (with_meta(step=-4), "meta.json: step cannot be -4", EVERYWHERE),
    "no classes": (with_meta(classes="nothing"), "meta.json: classes", EVERYWHERE),
    "classes are numbers": (with_meta(classes=[1, 2]), "classes: 1 is no name of a class", EVERYWHERE),
    "a class leads out": (with_meta(classes=["../../out"]), "'../../out' is no name", EVERYWHERE),
    "a class is above": (with_meta(classes=[".."]), r"'..' is no name", EVERYWHERE),
    "a class is absolute": (with_meta(classes=["/tmp/out"]), "'/tmp/out' is no name", EVERYWHERE),
    "a class twice": (with_meta(classes=["soup", "soup"]), "soup is there twice", EVERYWHERE),
    "best is a word": (with_meta(best="low"), "meta.json: best cannot be 'low'", EVERYWHERE),
    "validated is true": (with_meta(validated=True), "meta.json: validated cannot be True", EVERYWHERE),
    "minutes are none": (with_meta(minutes=None), "meta.json: minutes cannot be None", EVERYWHERE),
    "no minutes": (with_meta(minutes="nothing"), "'minutes'", ["resume"]),
    "config is a list": (with_config(lambda _: "[1, 2]"), "config.yaml: a mapping", EVERYWHERE),
    "config constructs": (with_config(lambda _: CONSTRUCTED), "could not determine a constructor", EVERYWHERE),
    "config is empty": (with_config(lambda _: "{}"), "config.yaml: data.image_size cannot be None", BUILT),
    "no model": (with_config(lambda c: c.replace("  model:", "  no:")), "objective.model.name cannot be None", BUILT),
    "unknown network": (
        with_config(lambda c: c.replace("name: ddpm", "name: ddpn")),
        "network.name: no model is named 'ddpn'; did you mean 'ddpm'",
        BUILT,
    ),
    "unknown key": (with_config(lambda c: f"{c}trian: 1\n"), "config.yaml: trian: unknown key", ["load"]),
    "lacking weight": (with_tensors(lambda t, n: t.pop(n)), "it lacks .*network.first.weight", FITTED),
    "additional weight": (with_tensors(lambda t, n: t.update(more=torch.ones(1))), "besides more", FITTED),
    "other shape": (with_tensors(lambda t, n: t.update({n: t[n][:4].clone()})), "size mismatch for .*first.w", FITTED),
    "other kind": (with_tensors(lambda t, n: t.update({n: t[n].int()})), "first.weight is int32, not float32", FITTED),
    "not a number": (
        with_tensors(lambda t, n: t[n].view(-1)[3:4].fill_(float("nan"))),
        r"first.weight is not a number \(NaN\)",
        EVERYWHERE,
    ),
    "huge header": (with_header(2**60), "safetensors: .*header", EVERYWHERE),
    "short header": (with_header(3), "safetensors: .*header", EVERYWHERE),
    "unlisted weights": (
        with_manifest(lambda m: m.pop("ema.safetensors")),
        "ema.safetensors: is not in|no weights",
        EVERYWHERE,
    ),
    "unlisted meta": (with_manifest(lambda m: m.pop("meta.json")), "meta.json: is not in the manifest", EVERYWHERE),
    "path outside": (with_manifest(lambda m: m.update({"../x": m["meta.json"]})), "x: is missing or not", EVERYWHERE),
    "absolute path": (with_manifest(lambda m: m.update({"/etc/hostname": m["meta.json"]})), "is missing", EVERYWHERE),
    "odd name": (with_manifest(lambda m: m.update({"a\0b": m["meta.json"]})), r"is missing or not", EVERYWHERE),
    "sizes are words": (with_manifest(lambda m: m.update(a={"size": "x", "sha256": ""})), "MANIFEST", EVERYWHERE),
    "link": (linked, "ema.safetensors: is missing or not a plain file", EVERYWHERE),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_checkpoint_is_refused_by_all_that_open_it(kind, doors, newest, tmp_path, monkeypatch):
    """One line says what is wrong, nothing is written, and nothing in it is run."""
    spoil, message, concerned = FORGED[kind]
    spoil(newest)
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("training began"))
    for door in concerned:
        found = refused(doors[door], newest)
        assert re.search(message, found), f"{door}: {found}"
    assert not (tmp_path / "ran").exists() and not run_of(tmp_path, "branch").exists()
    if "export" in concerned:
        assert not (tmp_path / "exported").exists()


def test_a_newest_that_is_not_a_number_is_passed_over(newest, run, tiny, whole, caplog):
    """A checkpoint of a diverged training, as versions before may have saved one, costs its steps alone."""
    FORGED["not a number"][0](newest)
    train.main([*tiny, "train.steps=4", "train.checkpoint_step=2", "train.checkpoint_path=latest"])
    assert "passed over" in caplog.text and "is not a number (NaN)" in caplog.text
    assert digest(newest) == digest(whole / "checkpoints" / "step-00000004")


def test_a_newest_of_another_version_is_not_passed_over(newest, run, tiny):
    """It is whole: to go on from an older one would lose its steps, and soon itself."""
    with_meta(format=2)(newest)
    message = refused(lambda path: train.main([*tiny, f"train.checkpoint_path={path}"]), "latest")
    assert "step-00000004: is of format 2" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: [*names, "tacos"], "has 9 classes, training has 8; they differ in tacos"),
        (lambda names: names[1:], "has 7 classes, training has 8; they differ in cookies"),
        (lambda names: ["biscuits", *names[1:]], "they differ in biscuits, cookies"),
        (lambda names: names[::-1], "has the same classes as training in another order, from "),
    ],
    ids=["more", "fewer", "other names", "other order"],
)
def test_a_checkpoint_of_other_classes_is_not_resumed(change, message, newest, doors, monkeypatch):
    """Nor if there are as many; it is said before images are encoded, and which names differ."""
    monkeypatch.setattr("foodgen.builders.training.make_loader", lambda *_: pytest.fail("long work began"))
    with_meta(classes=change(read_meta(newest)["classes"]))(newest)
    assert message in refused(doors["resume"], newest)


@pytest.mark.parametrize("count", [7, 9])
def test_weights_of_more_or_fewer_classes_are_not_sampled_from(count, newest, doors):
    """The number of class vectors tells."""
    with_meta(classes=[f"class {number}" for number in range(count)])(newest)
    for door in BUILT:
        assert "size mismatch for network.label.table" in refused(doors[door], newest)


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


# Snapshots of averages at a stop

POWER = ["ema={name: power_function, lengths: [0.05, 0.1], snapshot_step: 5}", "train.log_step=1"]


def snapshots_of(run):
    """What snapshots there are, by folder and file."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("averages/*/*.safetensors")}


def signal_after(step, monkeypatch):
    original = Trainer.step

    def signalled(self, number, *batch):
        measured = original(self, number, *batch)
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return measured

    monkeypatch.setattr(Trainer, "step", signalled)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dishes):
    """A run with averages of two lengths that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train.main([*arguments_of(folder, dishes), *POWER])
    return run_of(folder)


@pytest.mark.parametrize("cause", ["time", "signal"])
def test_the_averages_of_a_stop_are_kept_and_change_nothing_after(cause, undisturbed, tiny, tmp_path, monkeypatch):
    """Another length is exported of the last state; resumed, weights and averages are those of an undisturbed run."""
    with monkeypatch.context() as patch:
        stop_at(7, patch) if cause == "time" else signal_after(7, patch)
        assert train.main([*tiny, *POWER, "exp.run=parts"]) == (0 if cause == "time" else 143)
    stopped = last(tmp_path, "parts")
    assert stopped.name == "step-00000007"
    own = read_average(stopped)
    for name, tensor in average_of(stopped, 0.05).items():  # the length that is drawn with, kept in half precision
        torch.testing.assert_close(tensor, own[name], rtol=2e-3, atol=1e-5)
    export.main([*tiny, "exp.run=parts", "train.checkpoint_path=latest", "export.ema_length=0.08"])
    early = average_of(stopped, 0.08)
    train.main([*tiny, *POWER, "exp.run=parts", "train.checkpoint_path=latest"])
    final = [run / "checkpoints" / "step-00000012" for run in (undisturbed, run_of(tmp_path, "parts"))]
    assert digest(final[0]) == digest(final[1])
    found = [snapshots_of(run) for run in (undisturbed, run_of(tmp_path, "parts"))]
    assert {*found[1]} - {*found[0]} == {f"averages/end-00000007/length-{length}.safetensors" for length in (0.05, 0.1)}
    assert found[0].items() <= found[1].items()
    ends = [average_of(path, 0.08) for path in final]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert all(torch.equal(tensor, early[name]) for name, tensor in average_of(stopped, 0.08).items())


def test_the_time_budget_keeps_averages(tiny, tmp_path):
    """As configured: train.max_minutes."""
    train.main([*tiny, *POWER, "train.max_minutes=1e-9"])
    assert last(tmp_path).name == "step-00000001"
    assert {path.parent.name for path in Snapshots(run_of(tmp_path)).folder.glob("*/*")} == {"end-00000001"}
    assert average_of(last(tmp_path), 0.08)


def test_averages_of_stops_go_with_their_checkpoints(tmp_path):
    """Disk use is bounded: an end whose checkpoint is gone, and what a kill left half written, go on resumption."""
    snapshots = Snapshots(tmp_path)
    for step in (7, 8, 13):
        snapshots.save(step, {0.05: {"a": torch.zeros(1)}}, "end")
    snapshots.save(10, {0.05: {"a": torch.zeros(1)}})
    (snapshots.folder / ".writing-step-00000012").mkdir()
    (tmp_path / "checkpoints" / "step-00000008").mkdir(parents=True)
    snapshots.forget_after(10)
    assert sorted(path.name for path in snapshots.folder.iterdir()) == ["end-00000008", "step-00000010"]
    assert [step for step, *_ in snapshots.until(10)] == [10]
    assert [step for step, *_ in snapshots.until(8)] == [8]


def test_damaged_averages_are_named(tmp_path):
    """A flipped bit, other weights than before, or what is not finite is never mixed into an average."""
    place = tmp_path / "checkpoints" / "step-00000002"
    weights = {"a": torch.ones(3), "b": torch.ones(2)}
    write(place, module.Checkpoint(weights, weights, {}, {"step": 2, "classes": []}, "{}"))
    snapshots = Snapshots(tmp_path)
    for step in (1, 2):
        snapshots.save(step, {0.05: weights})
    assert torch.equal(average_of(place, 0.08)["a"], weights["a"])
    path = snapshots.folder / "step-00000001" / "length-0.05.safetensors"
    flip(path, -1)
    with pytest.raises(CheckpointError, match=r"step-00000001/length-0\.05\.safetensors: differs from its manifest"):
        average_of(place, 0.08)
    for content, message in (
        ({"a": weights["a"]}, "holds other weights than the snapshots before it"),
        ({"a": torch.ones(4), "b": weights["b"]}, "length-0.05.safetensors: a does not fit"),
        ({"a": torch.full((3,), 1e9), "b": weights["b"]}, "a is not finite"),
    ):
        snapshots.save(2, {0.05: content})
        snapshots.save(1, {0.05: weights})
        with pytest.raises(CheckpointError, match=message):
            average_of(place, 0.08)


def test_a_signal_between_two_looks_is_not_answered_without_a_checkpoint(tiny, tmp_path, monkeypatch):
    """One that comes just after a step has found none, where nothing is saved, ends the step after, with its state."""
    original = Session._must_stop

    def late(self):
        found = original(self)
        if self.trainer.global_step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(Session, "_must_stop", late)
    assert train.main(tiny) == 143
    assert last(tmp_path).name == "step-00000008"
    verify(last(tmp_path))

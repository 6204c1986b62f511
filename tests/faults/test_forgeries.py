"""Checkpoints forged under a manifest that is right: each is refused with one line that says why."""

import json
import re
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from foodgen.training.checkpoint import read_meta
from foodgen.training.manifest import MANIFEST, seal_files
from foodgen.training.trainer import Trainer
from tests.faults.refusals import refused
from tests.runs import digest, run_of


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

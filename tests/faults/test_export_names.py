"""What an export is called and where it goes: refused before a model is read, and nothing else is uploaded."""

import shutil

import pytest
from omegaconf import OmegaConf

from foodgen.builders import onnx
from foodgen.builders.sharing import stage
from foodgen.commands import cli, export
from foodgen.core.config import load
from foodgen.core.errors import CheckpointError, UserError
from foodgen.core.settings import ExportConfig
from foodgen.training.manifest import MANIFEST
from tests.conftest import ROOT

SHIPPED = ROOT / "checkpoints" / "gan"
TARGETS = [
    "me/x", "hub:", "hub:x", "hub:../x", "hub:me/..", "hub:me/../x", "hub:/x", "hub:me/", "hub:me//x", "hub:me/x/y",
    "hub:me/x y", "hub:me/x.git", "hub:me/" + "x" * 200, "hub:me/кафе", "hub:hub:me/x", "hub:me/-x", "HUB:me/x",
    "hub:me/x\n", "hub:me/x?y", "hub:https://huggingface.co/me/x",
]  # fmt: skip


@pytest.fixture
def before_work(monkeypatch):
    """Fails if a checkpoint is looked for."""
    monkeypatch.setattr(export, "find_checkpoint", lambda *_: pytest.fail("work has begun"))


def call(*arguments):
    export.main([f"exp.config_path={SHIPPED / 'inference.yaml'}", *arguments])


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_no_name_of_the_hub_is_refused_before_work(target, before_work):
    with pytest.raises(UserError, match=r"export\.target: .*( is not hub:OWNER/NAME|a word is expected)") as raised:
        call(f'export.target="{target}"' if "\n" not in target else 'export.target="hub:me/x\\n"')
    assert len(str(raised.value).splitlines()) == 1 and len(str(raised.value)) < 200


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("full", "full: exists already"),
        ("file", "file: exists already"),
        ("file/out", "out cannot be made in .*file"),
        ("full/..", "is no name of a new folder"),
        ("new/..", "is no name of a new folder"),
        ("dangling", "dangling: exists already"),
        ("dangling/out", "out cannot be made in .*dangling"),
        (".", "is no name of a new folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_work(tmp_path, output, message, kind, monkeypatch, before_work):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        call(f"export.output_dir={output}", f"export.format={kind}")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "..", ".", "/etc", "a/../../x", "a/.."])
@pytest.mark.parametrize("command", ["train", "export"])
def test_a_run_whose_name_leads_out_of_its_folder_is_refused(tmp_path, name, command, tiny):
    with pytest.raises(UserError, match=r"exp\.run: '.*' is no name of a folder in exp\.exp_dir"):
        cli.main([command, *tiny, f"exp.run={name}", "train.checkpoint_path=latest"])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def exported(tmp_path):
    folder = shutil.copytree(SHIPPED, tmp_path / "export")
    (folder / "inference.yaml").write_text("sampler: {name: one_shot}\n")  # its own extends a file beside the project
    return folder


def staged(folder, tmp_path, **changes):
    config = load([f"exp.config_path={SHIPPED / 'inference.yaml'}"], ExportConfig)
    for key, value in changes.items():
        getattr(config, key).update(value)
    stage(folder, tmp_path / "staged", "me/x", config, tmp_path / "run")
    return {path.relative_to(tmp_path / "staged").as_posix() for path in (tmp_path / "staged").rglob("*")}


def test_a_models_files_alone_are_uploaded(exported, tmp_path):
    plain = {path.name for path in exported.iterdir()}
    for name in (".env", "notes.txt", "id_rsa", "weights.pt", "model.safetensors.bak"):
        (exported / name).write_text("secret")
    assert staged(exported, tmp_path) == plain


@pytest.mark.parametrize("name", ["secret.json", "README.md"])
def test_a_link_out_of_an_exported_folder_is_not_uploaded(exported, tmp_path, name):
    (tmp_path / "secret.txt").write_text("secret")
    (exported / name).unlink(missing_ok=True)
    (exported / name).symlink_to(tmp_path / "secret.txt")
    with pytest.raises(CheckpointError, match="is a link to elsewhere, which is not uploaded"):
        staged(exported, tmp_path)


@pytest.mark.parametrize("path", ["{}/private", "../private", "{}/export/../private", "/etc"])
def test_a_codec_that_is_no_model_is_not_uploaded(exported, tmp_path, path):
    """An inference.yaml that came with a model names a folder of this machine."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.json").write_text("{}")
    given = OmegaConf.create({"codec": {"name": "latents", "path": path.format(tmp_path)}})
    (exported / "inference.yaml").write_text(OmegaConf.to_yaml(given))
    with pytest.raises(CheckpointError, match=rf"{MANIFEST}|there is no such checkpoint"):
        staged(exported, tmp_path)
    assert not [found for found in (tmp_path / "staged").rglob("*") if "secret" in found.name]


def test_a_full_disk_leaves_no_half_onnx_export(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")

    def write(runtime, pipeline, folder):
        (folder / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "_write_all", write)
    with pytest.raises(CheckpointError, match=r"out: could not be written .No space left on device"):
        onnx.export_onnx(None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

"""Every diffusion recipe's small setting trains, resumes to the bit, draws and is scored, from its YAML."""

import json

import pytest
import torch

import export
import inference
import train
from foodgen.core import config
from foodgen.core.errors import CheckpointError, ConfigError
from foodgen.core.files import read_jsonl
from foodgen.core.settings import Config
from foodgen.training.checkpoint import read_average
from tests.conftest import ROOT
from tests.runs import digest, last, run_of, score_by_colours
from tests.test_recipes import stop_at

ALONE = ["ddpm", "iddpm", "adm", "edm", "edm2", "dit", "hybrid"]  # recipes that need no other first
FIRST = ["vae", "adm_classifier"]


@pytest.fixture(scope="module")
def firsts(plates, tmp_path_factory):
    """An autoencoder and a classifier, each after five steps."""
    folder = tmp_path_factory.mktemp("firsts")
    for name in FIRST:
        train.main(
            [
                f"exp.config_path={ROOT / 'configs' / 'small' / name}.yaml",
                *(f"exp.exp_dir={folder}", f"exp.run={name}", "exp.device=cpu", "dataset={name: folder}"),
                *(f"data.input_train_dir={plates / 'train'}", f"data.input_val_dir={plates / 'test'}"),
                *("data.train_batch_size=4", "train.steps=5", "train.grid_count=8"),
            ]
        )
    return folder


def compare(small, tmp_path, monkeypatch, name, *options):
    """Train whole, and in two parts; both must be equal. Draws, and gives the rows and what inference found."""
    score_by_colours(monkeypatch)
    few = ["sampler.steps=3"] if name not in ("vae", "adm_classifier") else []
    arguments = small(f"small/{name}", *options, *few, "train.val_step=100")
    assert train.main([*arguments, "exp.run=whole"]) == 0
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        train.main([*arguments, "exp.run=parts"])
    train.main([*arguments, "exp.run=parts", "train.checkpoint_path=latest"])
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))
    rows = [read_jsonl(run_of(tmp_path, run) / "metrics.jsonl") for run in ("whole", "parts")]
    timing = ("minutes", "images_per_second")
    assert [{k: v for k, v in row.items() if k not in timing} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in timing} for row in rows[1]
    ]
    more = ["train.checkpoint_path=latest", "exp.run=parts", "inference.count=16", "data.image_size=32"]
    kept = [option for option in options if not option.startswith(("train.", "objective"))]
    inference.main([*small(f"inference/{name}", *kept, *few), *more])
    return rows[0], json.loads((run_of(tmp_path, "parts") / "metrics.json").read_text())


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.long
def test_trains_resumes_to_the_bit_and_is_scored(name, small, tmp_path, monkeypatch):
    rows, found = compare(small, tmp_path, monkeypatch, name)
    assert all(row["model/loss"] == row["model/loss"] for row in rows)
    assert found["fid"] > 0
    assert len(list((run_of(tmp_path, "parts") / "images").glob("*/*.png"))) == 16
    if name == "iddpm":
        assert {"model/error", "model/bits_per_dimension"} <= rows[0].keys()
        assert found["bits_per_dimension"] > 0


@pytest.mark.long
def test_the_autoencoder_is_judged_by_what_it_restores(small, tmp_path, monkeypatch):
    rows, found = compare(small, tmp_path, monkeypatch, "vae", "objective.discriminator_start=2")
    assert {"model/adversarial", "model/kl", "discriminator/real_logit"} <= rows[-2].keys()
    assert rows[-1]["val/psnr"] == pytest.approx(found["psnr"])
    assert found["psnr"] > 3


@pytest.mark.long
def test_the_classifier_is_judged_by_its_accuracy(small, tmp_path, monkeypatch):
    rows, found = compare(small, tmp_path, monkeypatch, "adm_classifier")
    assert rows[-1]["val/accuracy"] == pytest.approx(found["accuracy"])
    assert found["generated_count"] == 0
    assert not list((run_of(tmp_path, "parts")).glob("images/*"))
    assert not (run_of(tmp_path, "parts") / "grid.png").exists()


@pytest.mark.long
def test_latents_of_a_trained_autoencoder(small, firsts, tmp_path, monkeypatch, plates):
    others = {*plates.glob("train.latents-*")}
    _, found = compare(small, tmp_path, monkeypatch, "latent", f"codec.path={firsts / 'vae'}")
    assert found["fid"] > 0
    (kept,) = {*plates.glob("train.latents-*")} - others  # encoded once, for three sittings
    assert (kept / "done.json").exists()


@pytest.mark.long
def test_a_trained_classifier_guides(small, firsts, tmp_path, monkeypatch):
    path = f"guidance.classifier={firsts / 'adm_classifier'}"
    _, found = compare(small, tmp_path, monkeypatch, "adm_guided", path)
    assert found["guidance"]["classifier"] == str(firsts / "adm_classifier")


@pytest.mark.long
def test_an_earlier_checkpoint_guides_together_with_the_class(small, tmp_path):
    train.main(small("small/edm", "sampler.steps=2", "train.checkpoint_step=2"))
    checkpoints = run_of(tmp_path) / "checkpoints"
    draw = small("inference/edm", "train.checkpoint_path=latest", "sampler.steps=2", "inference.metrics=[]")

    def drawn(name, guidance):
        folder = tmp_path / name
        inference.main([*draw, f"guidance={guidance}", f"inference.output_dir={folder}", "inference.count=8"])
        return [path.read_bytes() for path in sorted(folder.glob("images/*/*.png"))]

    def both(step, scale):
        auto = f"{{name: autoguidance, guide: {checkpoints / f'step-{step:08d}'}, scale: {scale}}}"
        return f"{{name: together, guidances: {{auto: {auto}, free: {{name: classifier_free, scale: 1.0}}}}}}"

    plain = drawn("plain", "{name: none}")
    assert drawn("itself", both(5, 2.0)) == plain  # its own guide, and a scale of one
    assert drawn("earlier", both(2, 1000.0)) != plain


@pytest.mark.long
def test_an_average_of_another_length_is_exported(small, tmp_path):
    train.main(small("small/edm2", "ema.snapshot_step=2", "train.steps=12", "sampler.steps=2"))
    common = ["train.checkpoint_path=latest", "export.ema_length=0.08"]
    export.main([*small("small/edm2"), *common])
    made = read_average(run_of(tmp_path) / "export-0.08")
    assert made.keys() == read_average(last(tmp_path)).keys()
    drawn = small("inference/edm2", f"train.checkpoint_path={run_of(tmp_path) / 'export-0.08'}", "sampler.steps=2")
    inference.main([*drawn, "inference.count=8", "inference.metrics=[]"])
    assert len(list((run_of(tmp_path) / "images").glob("*/*.png"))) == 8
    with pytest.raises(ConfigError, match=r"export\.ema_length: .*got 2\.0"):
        export.main([*small("small/edm2"), "train.checkpoint_path=latest", "export.ema_length=2.0"])


@pytest.mark.long
def test_a_snapshot_that_cannot_be_written_does_not_end_the_training(small, tmp_path, caplog):
    folder = run_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / "averages").write_text("in the way")
    train.main(small("small/edm2", "ema.snapshot_step=2", "sampler.steps=2", "train.checkpoint_path=latest"))
    assert "no snapshot of the averages, training goes on" in caplog.text
    assert last(tmp_path).name == "step-00000005"


@pytest.mark.long
def test_alignment_trains_with_the_real_teacher(small, tmp_path):
    net = "{name: hybrid, widths: [8], blocks: 1, width: 16, depth: 2, heads: 2}"
    options = ["data.image_size=32", "objective.features.resolution=64", "train.val_count=0", "sampler.steps=2"]
    train.main(small("hybrid_aligned", f"objective.model.network={net}", "exp.use_wandb=false", *options))
    assert 0 < read_jsonl(run_of(tmp_path) / "metrics.jsonl")[0]["model/misalignment"] < 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("small/latent", ["codec.path=nowhere"], "nowhere: there is no such checkpoint"),
        ("small/adm_guided", ["guidance.classifier=nowhere"], "nowhere: there is no such checkpoint"),
        ("small/edm", ["train.val_metrics=[accuracy]"], "accuracy: takes a classifier; PreconditionedDenoiser is none"),
        (
            "small/adm_classifier",
            ["train.val_metrics=[accuracy,fid]", "train.val_count=16"],
            "none generates no images, which fid",
        ),
        (
            "small/edm",
            ["sampler={name: reconstruction}"],
            "takes an autoencoder; PreconditionedDenoiser is none",
        ),
        ("small/vae", ["sampler={name: heun}"], "Heun samples from a denoiser; for KLAutoencoder use one_shot"),
        ("small/iddpm", ["objective.model.process={name: edm}"], r"model\.process: .*ddpm"),
        ("small/edm", ["guidance={name: together, guidances: [1]}"], r"guidance\.guidances: parts are expected"),
    ],
)
def test_mistakes_leave_nothing_behind(name, options, message, small, tmp_path):
    with pytest.raises((ConfigError, CheckpointError), match=message):
        train.main(small(name, *options))
    assert not run_of(tmp_path).exists()


@pytest.mark.parametrize("name", [*ALONE, *FIRST, "latent", "adm_guided"])
def test_the_small_recipe_is_the_papers_but_for_its_size(name):
    def shape(part):
        """Names of all parts within a part."""
        if not isinstance(part, dict):
            return None
        kept = {key: shape(value) for key, value in part.items() if isinstance(value, dict) and key != "features"}
        return {"name": part.get("name"), **kept}

    small, full = (
        config.load([f"exp.config_path={ROOT / 'configs' / folder / name}.yaml"], Config) for folder in ("small", ".")
    )
    for key in ("objective", "codec", "ema", "schedule", "guidance", "sampler"):
        assert shape(getattr(small, key)) == shape(getattr(full, key)), key
    assert small.dataset == {"name": "synthetic", "root": "data/synthetic_32"}


def test_a_guide_of_other_classes_is_refused(small, firsts, tmp_path, plates):
    other = tmp_path / "other"
    for split in ("train", "test"):
        (other / split).mkdir(parents=True)
        for folder in sorted((plates / split).glob("[!.]*"))[:3]:
            (other / split / folder.name).symlink_to(folder)
    wrong = small("small/adm_guided", f"guidance.classifier={firsts / 'adm_classifier'}")
    with pytest.raises(Exception, match="has 8 classes, training has 3"):
        train.main([*wrong, f"data.input_train_dir={other / 'train'}", f"data.input_val_dir={other / 'test'}"])


@pytest.mark.long
@pytest.mark.parametrize("name", ["edm2", "iddpm", "hybrid_aligned"])
def test_compiled_networks_train_the_same(name, small, tmp_path, monkeypatch):
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *_, **__: original(self, backend="aot_eager"))
    options = ["sampler.steps=2", "train.val_count=0", "data.image_size=32", "train.steps=3", "exp.use_wandb=false"]
    if name == "hybrid_aligned":
        net = "{name: hybrid, widths: [8], blocks: 1, width: 16, depth: 2, heads: 2}"
        options += [f"objective.model.network={net}", "objective.features.resolution=64"]
    path = name if name == "hybrid_aligned" else f"small/{name}"
    train.main(small(path, *options, "exp.run=fast", "train.compile=true"))
    train.main(small(path, *options, "exp.run=plain"))
    rows = [read_jsonl(run_of(tmp_path, run) / "metrics.jsonl") for run in ("fast", "plain")]
    for fast, plain in zip(*rows, strict=True):
        assert fast.keys() - {"images_per_second"} == plain.keys() - {"images_per_second"}
        assert fast["model/loss"] == pytest.approx(plain["model/loss"], rel=1e-3)

"""Every recipe trains and resumes to the bit, and no mistake or damage costs a run."""

import pytest
import torch

import inference
import train
from foodgen.core.errors import CheckpointError, ConfigError, DataError, UserError
from foodgen.core.files import read_jsonl
from foodgen.metrics.fid import FID
from foodgen.models.ddpm import UNet
from foodgen.training.checkpoint import Checkpoints, read_average, read_meta
from foodgen.training.session import Session
from foodgen.training.trainer import Trainer
from tests.runs import digest, last, run_of, score_by_colours

PROCESSES = ["edm", "flow", "ddpm"]


def stop_at(step, monkeypatch):
    """Make the session end after `step`, as a time budget would."""
    original = Session._must_stop
    monkeypatch.setattr(Session, "_must_stop", lambda self: self.trainer.global_step == step or original(self))


@pytest.mark.parametrize("process", PROCESSES)
def test_trains_resumes_to_the_bit_and_samples(process, tiny, tmp_path, monkeypatch):
    options = [*tiny, f"objective.model.process.name={process}", "data.workers=0"]
    assert train.main([*options, "exp.run=whole"]) == 0
    with monkeypatch.context() as patch:
        stop_at(7, patch)
        assert train.main([*options, "exp.run=parts"]) == 0
    assert last(tmp_path, "parts").name == "step-00000007"
    assert train.main([*options, "exp.run=parts", "train.checkpoint_path=latest"]) == 0
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))
    rows = [[row for row in read_jsonl(run_of(tmp_path, name) / "metrics.jsonl")] for name in ("whole", "parts")]
    keys = ("step", "images", "model/loss", "model/gradient_norm", "model/learning_rate")
    assert [[row[key] for key in keys] for row in rows[0]] == [[row[key] for key in keys] for row in rows[1]]
    assert [row["step"] for row in rows[0]] == [2, 4, 6, 8, 10, 12]
    inference.main([*tiny, "data.workers=0", "exp.run=parts", "train.checkpoint_path=latest"])
    assert len(list((run_of(tmp_path, "parts") / "images").glob("*/*.png"))) == 32


@pytest.mark.parametrize("optimizer", ["{name: muon, lr: 0.01}", "{name: adamw, weight_decay: 0.1}"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_resumes_to_the_bit_with_other_parts(optimizer, schedule, tiny, tmp_path, monkeypatch):
    options = [
        *tiny,
        f"optimizers.model={optimizer}",
        f"schedule.name={schedule}",
        "train.grad_accumulation=2",
        "train.grad_clip=0.5",
    ]
    options += ["train.precision=bf16", "dataset.name=folder"]
    train.main([*options, "exp.run=whole"])
    with monkeypatch.context() as patch:
        stop_at(6, patch)
        train.main([*options, "exp.run=parts"])
    train.main([*options, "exp.run=parts", "train.checkpoint_path=latest", "data.workers=2"])
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))


def test_the_loss_falls(tiny, tmp_path):
    train.main([*tiny, "train.steps=120", "train.log_step=20", "optimizers.model.lr=0.003"])
    losses = [row["model/loss"] for row in read_jsonl(run_of(tmp_path) / "metrics.jsonl")]
    assert losses[-1] < 0.7 * losses[0]


def test_device_resident_data_trains_the_same(tiny, tmp_path):
    train.main([*tiny, "exp.run=a"])
    train.main([*tiny, "exp.run=b", "data.keep_on_device=true"])
    assert digest(last(tmp_path, "a")) == digest(last(tmp_path, "b"))


@pytest.mark.long
def test_a_compiled_run_trains_and_keeps_plain_names(tiny, tmp_path, monkeypatch):
    compiled = []
    original = UNet.compile
    monkeypatch.setattr(UNet, "compile", lambda self: (compiled.append(self), original(self, backend="aot_eager")))
    train.main([*tiny, "exp.run=fast", "train.compile=true", "train.channels_last=true"])
    assert len(compiled) == 1
    assert compiled[0]._compiled_call_impl is not None
    train.main([*tiny, "exp.run=plain"])
    averages = [read_average(last(tmp_path, name)) for name in ("fast", "plain")]
    for name, tensor in averages[1].items():
        torch.testing.assert_close(averages[0][name], tensor, rtol=0.05, atol=5e-3)


def test_validation_leaves_training_alone_and_is_logged(tiny, tmp_path, monkeypatch):
    train.main([*tiny, "exp.run=a"])
    modes = []
    original = Session._validate

    def watch(session):
        before = session.trainer.objective.model.training
        better = original(session)
        modes.append((before, session.trainer.ema.model.training, session.trainer.objective.model.training))
        return better

    monkeypatch.setattr(Session, "_validate", watch)
    train.main([*tiny, "exp.run=b", "train.val_step=5"])
    assert modes == [(True, False, True)] * 3  # steps 5, 10 and the last
    assert digest(last(tmp_path, "a")) == digest(last(tmp_path, "b"))
    assert sorted(path.name for path in (run_of(tmp_path, "b") / "grids").iterdir()) == [
        "step-00000005.png",
        "step-00000010.png",
        "step-00000012.png",
    ]


def test_validation_scores_and_keeps_the_best(tiny, tmp_path, monkeypatch):
    score_by_colours(monkeypatch)
    scored = [*tiny, "train.val_step=2", "train.val_count=16", "train.val_metrics=[fid]", "train.keep_checkpoints=2"]
    values = iter([9, 3, 5, 4, 8, 7])
    monkeypatch.setattr(FID, "__call__", lambda self, inputs: {"fid": next(values)})
    train.main(scored)
    rows = [row for row in read_jsonl(run_of(tmp_path) / "metrics.jsonl") if "val/fid" in row]
    assert [(row["step"], row["val/fid"], row["val/count"]) for row in rows] == [
        (2, 9, 16),
        (4, 3, 16),
        (6, 5, 16),
        (8, 4, 16),
        (10, 8, 16),
        (12, 7, 16),
    ]
    checkpoints = Checkpoints(run_of(tmp_path) / "checkpoints", 2)
    assert checkpoints.best().name == "step-00000004"
    assert [path.name[-2:] for path in checkpoints.steps()] == ["04", "10", "12"]
    assert read_meta(last(tmp_path))["best"] == 3
    assert read_meta(last(tmp_path))["validated"] == 12


def test_an_existing_run_is_never_overwritten(tiny, tmp_path):
    train.main(tiny)
    before = digest(last(tmp_path))
    with pytest.raises(ConfigError, match=r"holds a run already.*latest"):
        train.main(tiny)
    assert train.main([*tiny, "train.checkpoint_path=latest"]) == 0  # finished: nothing to do
    assert digest(last(tmp_path)) == before


def test_latest_starts_a_run_that_is_not_there(tiny, tmp_path):
    assert train.main([*tiny, "train.checkpoint_path=latest"]) == 0
    assert last(tmp_path).name == "step-00000012"


def test_an_older_checkpoint_branches_into_another_run_only(tiny, tmp_path):
    train.main(tiny)
    older = run_of(tmp_path) / "checkpoints" / "step-00000005"
    with pytest.raises(ConfigError, match=r"gone on to step-00000012.*exp\.run"):
        train.main([*tiny, f"train.checkpoint_path={older}"])
    assert train.main([*tiny, f"train.checkpoint_path={older}", "exp.run=branch"]) == 0
    assert digest(last(tmp_path, "branch")) == digest(last(tmp_path))


def test_an_absolute_path_goes_on_with_the_same_run(tiny, tmp_path, monkeypatch):
    train.main([*tiny, "train.steps=5"])
    monkeypatch.chdir(tmp_path)
    newest = read_meta(last(tmp_path))
    train.main([*tiny, "exp.exp_dir=runs", f"train.checkpoint_path={last(tmp_path).resolve()}"])
    assert read_meta(last(tmp_path))["run_id"] == newest["run_id"]
    assert read_meta(last(tmp_path))["step"] == 12


def test_latest_after_a_death_before_the_first_checkpoint_starts_clean(tiny, tmp_path):
    run_of(tmp_path).mkdir(parents=True)
    (run_of(tmp_path) / "metrics.jsonl").write_text('{"step": 2}\n{"step": 4}\n')
    train.main([*tiny, "train.checkpoint_path=latest"])
    assert [row["step"] for row in read_jsonl(run_of(tmp_path) / "metrics.jsonl")] == [2, 4, 6, 8, 10, 12]


def test_a_checkpoint_that_does_not_fit_leaves_the_record_alone(tiny, tmp_path):
    train.main(tiny)
    before = (run_of(tmp_path) / "config.yaml").read_text()
    with pytest.raises(CheckpointError):
        train.main([*tiny, "train.checkpoint_path=latest", "objective.model.network.width=16"])
    assert (run_of(tmp_path) / "config.yaml").read_text() == before


def test_a_resumed_optimizer_follows_the_configuration(tiny, tmp_path, monkeypatch):
    train.main([*tiny, "train.steps=5"])
    decays = []
    original = Trainer.step

    def watch(self, *rest):
        decays.append(self.optimizers["model"].parts[0].param_groups[0]["weight_decay"])
        return original(self, *rest)

    monkeypatch.setattr(Trainer, "step", watch)
    train.main([*tiny, "train.checkpoint_path=latest", "optimizers.model.weight_decay=0.25"])
    assert set(decays) == {0.25}


def test_a_failing_validation_loses_no_step(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("foodgen.samplers.sampler.DiffusionSampler.__call__", full)
    with pytest.raises(UserError, match=r"data\.val_batch_size"):
        train.main([*tiny, "train.val_step=7"])
    assert last(tmp_path).name == "step-00000007"


def test_a_count_without_fair_shares_is_refused_before_training(tiny, tmp_path, monkeypatch):
    score_by_colours(monkeypatch)
    with pytest.raises(ConfigError, match=r"train\.val_count: class cookies would have 3 of 20.*train\.val_count=16"):
        train.main([*tiny, "train.val_metrics=[fid]", "train.val_count=20"])
    assert not run_of(tmp_path).exists()


def test_a_damaged_checkpoint_is_passed_over(tiny, tmp_path, caplog):
    train.main([*tiny, "exp.run=whole"])
    train.main(tiny)
    weights = last(tmp_path) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert train.main([*tiny, "train.checkpoint_path=latest"]) == 0
    assert "passed over" in caplog.text
    assert digest(last(tmp_path)) == digest(last(tmp_path, "whole"))


def test_all_damaged_is_an_error_not_a_fresh_start(tiny, tmp_path):
    train.main(tiny)
    for path in (run_of(tmp_path) / "checkpoints").glob("step-*"):
        (path / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="all 3 checkpoints are damaged"):
        train.main([*tiny, "train.checkpoint_path=latest"])


def test_a_checkpoint_of_another_shape_is_refused(tiny, tmp_path):
    train.main(tiny)
    with pytest.raises(CheckpointError, match="does not fit the configuration: size mismatch"):
        train.main([*tiny, "train.checkpoint_path=latest", "objective.model.network.width=16"])


def test_out_of_memory_names_the_keys(tiny, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "step", full)
    with pytest.raises(UserError, match=r"data\.train_batch_size.*train\.grad_accumulation"):
        train.main(tiny)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data.input_train_dir=nowhere", DataError, r"data\.input_train_dir: nowhere: there is no such folder"),
        ("data.train_batch_size=7 train.grad_accumulation=2", ConfigError, r"data\.train_batch_size: 7"),
        ("exp.device=cuda:7", ConfigError, r"exp\.device: cuda:7"),
        ("optimizers.modle={name: adamw}", ConfigError, r"optimizers\.modle"),
        ("sampler.step=3", ConfigError, r"sampler\.step: euler has no such argument; did you mean 'steps'"),
        ("objective.model.network.widht=3", ConfigError, r"objective\.model\.network\.widht: .*'width'"),
        ("sampler.steps=true", ConfigError, r"sampler\.steps: a number"),
        ("objective.model.network.width=7", ConfigError, r"objective\.model\.network: width: 7 is even"),
        ("objective.model={name: ddpm}", ConfigError, r"objective\.model: UNet is not a Denoiser"),
        (
            "objective.model.process={name: ddpm, num_timesteps: 2}",
            ConfigError,
            r"sampler\.steps: 3 is not between 1 and 2",
        ),
        ("exp=tiny", ConfigError, r"exp\.config_path=FILE is missing"),
        ("sampler={name: [heun]}", ConfigError, r"sampler\.name"),
        ("data.image_size=32", DataError, r"is 16x16 pixels, not 32x32; prepare_data\.py"),
    ],
)
def test_mistakes_leave_nothing_behind(override, error, message, tiny, tmp_path):
    with pytest.raises(error, match=message):
        train.main([*tiny, *override.split(" ", 1)] if "{" not in override else [*tiny, override])
    assert not run_of(tmp_path).exists()

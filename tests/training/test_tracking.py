"""Tracking: the file that is always there, and the real W&B client at its side."""

import json
import struct
import sys
import threading
import time
import types
import zlib

import pytest
import torch
import wandb
from wandb.proto import wandb_internal_pb2

import inference
import train
from foodgen.core.errors import ConfigError
from foodgen.core.files import read_jsonl
from foodgen.reporting.grids import save_grid
from foodgen.training import wandb_run
from foodgen.training.tracker import Tracker
from foodgen.training.wandb_run import WandbRun
from tests.runs import run_of, score_by_colours

KINDS = {kind: zlib.crc32(bytes([kind])) for kind in (1, 2, 3, 4)}


def records(path):
    """The records of a .wandb file: LevelDB's log framing around W&B's protocol buffers."""
    raw = path.read_bytes()
    assert struct.unpack("<4sHB", raw[:7])[0] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(raw):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        checksum, length, kind = struct.unpack("<IHB", raw[place : place + 7])
        data = raw[place + 7 : place + 7 + length]
        if kind not in KINDS or checksum != zlib.crc32(data, KINDS[kind]):
            return
        place += 7 + length
        whole = data if kind in (1, 2) else whole + data
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def wandb_rows(folder):
    """All logged rows of a run folder's W&B files, in order."""
    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                rows.append(
                    {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
                )
    return rows


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home"))
    yield
    if "wandb" in sys.modules and hasattr(sys.modules["wandb"], "teardown"):
        sys.modules["wandb"].teardown()


def measure(tracker, *values):
    for value in values:
        tracker.add({"model/loss": torch.tensor(float(value))})


def test_rows_are_means_since_the_last(tmp_path):
    tracker = Tracker(tmp_path, 10)
    measure(tracker, 1, 2, 6)
    tracker.flush(3, 30, minutes=0.5)
    measure(tracker, 5)
    tracker.flush(4, 40)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["images"], row["model/loss"]) for row in rows] == [(3, 30, 3.0), (4, 40, 5.0)]
    assert rows[0]["minutes"] == 0.5
    assert rows[1]["images_per_second"] > 0


def test_half_full_means_survive_a_resume(tmp_path):
    tracker = Tracker(tmp_path, 10)
    measure(tracker, 1, 2)
    state = tracker.state()
    again = Tracker(tmp_path, 10)
    again.resume(2, state)
    measure(again, 6)
    again.flush(3, 30)
    assert read_jsonl(tmp_path / "metrics.jsonl")[0]["model/loss"] == 3.0


def test_a_torn_line_is_left_out_and_later_rows_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "a": 1}\n{"step": 4}\n{"step": 6}\n{"step": 8, "a"')
    assert [row["step"] for row in read_jsonl(path)] == [2, 4, 6]
    tracker = Tracker(tmp_path, 10)
    tracker.resume(4, {"sums": {}, "counts": {}})
    assert path.read_text() == '{"step": 2, "a": 1}\n{"step": 4}\n'


def test_what_is_not_finite_is_left_out_of_means(tmp_path):
    tracker = Tracker(tmp_path, 10)
    measure(tracker, 1, float("inf"), 5, float("nan"))
    tracker.add({"model/other": torch.tensor(float("nan"))})
    tracker.flush(4, 40)
    row = read_jsonl(tmp_path / "metrics.jsonl")[0]
    assert row["model/loss"] == 3.0
    assert "model/other" not in row


def test_a_full_disk_is_said_once(tmp_path, caplog):
    tracker = Tracker(tmp_path / "gone", 10)
    for step in (1, 2):
        tracker.write({"step": step})
    assert caplog.text.count("training goes on") == 1


def test_what_is_measured_now_and_then_is_averaged_over_those_times(tmp_path):
    tracker = Tracker(tmp_path, 12)
    for step in range(1, 5):
        tracker.add({"loss": torch.tensor(1.0)} | ({"penalty": torch.tensor(6.0)} if step % 2 == 0 else {}))
    again = Tracker(tmp_path, 12)
    again.resume(4, tracker.state())
    again.add({"penalty": torch.tensor(9.0)})
    again.flush(5, 5)
    row = read_jsonl(tmp_path / "metrics.jsonl")[-1]
    assert (row["loss"], row["penalty"]) == (1.0, 7.0)


def test_an_older_state_has_one_count_for_all(tmp_path):
    tracker = Tracker(tmp_path, 12)
    tracker.resume(4, {"sums": {"loss": torch.tensor(6.0)}, "count": 3})
    tracker.flush(4, 4)
    assert read_jsonl(tmp_path / "metrics.jsonl")[-1]["loss"] == 2.0


def test_wandb_keeps_every_row_of_a_run_that_was_rolled_back(tmp_path):
    for steps in (range(10), range(5, 12)):
        time.sleep(1.1)  # W&B names its folders by the second
        remote = WandbRun(tmp_path, "abc123", {"lr": 0.1, "model": {"width": 64}}, "project")
        tracker = Tracker(tmp_path, 12, [remote])
        for step in steps:
            tracker.write({"step": step, "loss": step / 10})
        path = tmp_path / "grid.png"
        save_grid(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 1], ["a", "b"], path)
        tracker.image(steps[-1], "grid", path)
        tracker.close(0)
        assert not remote.failed
    wandb.teardown()  # W&B's own process ends its file up to a tenth of a second after finish()
    rows = wandb_rows(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [*range(10), *range(5, 12)]
    assert sum(row.get("grid/_type") == "image-file" for row in rows) == 2
    folders = list(tmp_path.glob("wandb/offline-run-*"))
    assert {path.name.split("-")[3] for path in folders} == {"abc123"}
    configs = [
        record.run.config
        for path in folders
        for record in records(next(path.glob("run-*.wandb")))
        if record.HasField("run")
    ]
    assert any(update.key == "lr" for update in configs[0].update)


def fake(monkeypatch, **parts):
    known = wandb.setup
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Settings=lambda **_: None, setup=known, **parts))


def fake_run(**parts):
    settings = types.SimpleNamespace(sync_dir="there")
    return types.SimpleNamespace(define_metric=lambda *_, **__: None, url=None, settings=settings, **parts)


def broken(*_, **__):
    raise ConnectionError("server error 500")


def never(*_, **__):
    threading.Event().wait()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["not installed", "fails", "hangs", "breaks later"])
def test_no_trouble_of_wandb_reaches_training(kind, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb_run, "PATIENCE", 0.3)
    if kind == "not installed":
        monkeypatch.setitem(sys.modules, "wandb", None)
    elif kind == "breaks later":
        fake(
            monkeypatch,
            init=lambda **_: fake_run(log=broken, finish=never),
        )
    else:
        fake(monkeypatch, init=broken if kind == "fails" else never)
    remote = WandbRun(tmp_path, "abc123", {}, "project")
    tracker = Tracker(tmp_path, 10, [remote])
    began = time.monotonic()
    for step in range(20_000):
        remote.log({"step": step})
    tracker.write({"step": 1})
    tracker.close(0)
    assert time.monotonic() - began < 10
    assert caplog.text.count("W&B is left out from here on") <= 1
    assert "W&B" in caplog.text
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_an_unreachable_server_means_offline(tmp_path, monkeypatch, caplog):
    modes = []

    def init(mode, **_):
        modes.append(mode)
        if mode == "online":
            broken()
        return fake_run(finish=lambda **_: None)

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    fake(monkeypatch, init=init)
    WandbRun(tmp_path, "abc123", {}, "project").close(0)
    assert modes == ["online", "offline"]
    assert "logged offline" in caplog.text


def test_scores_of_an_inference_join_the_trainings_run(tiny, tmp_path, monkeypatch, capsys):
    score_by_colours(monkeypatch)
    tracked = [*tiny, "exp.use_wandb=true", "inference.count=32", "inference.baseline_draws=0"]
    train.main(tracked)
    assert "W&B: offline: wandb sync " in capsys.readouterr().err
    time.sleep(1.1)  # W&B names its folders by the second
    inference.main([*tracked, "train.checkpoint_path=latest", "inference.metrics=[fid,precision]"])
    wandb.teardown()
    folders = sorted(run_of(tmp_path).glob("wandb/offline-run-*"))
    assert len(folders) == 2
    assert len({path.name.split("-")[3] for path in folders}) == 1
    found = json.loads((run_of(tmp_path) / "metrics.json").read_text())
    rows = {name: value for row in wandb_rows(run_of(tmp_path)) for name, value in row.items()}
    for name in ("fid", "precision", "recall", "feature_diversity"):
        assert rows[f"inference/{name}"] == pytest.approx(found[name])
    assert "inference/grid/path" in rows
    (path,) = folders[1].glob("files/media/table/inference/by_class*.table.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["class", "images", "precision", "feature_diversity"]
    assert len(table["data"]) == 8
    assert all(row[1] == 4 for row in table["data"])


@pytest.mark.parametrize(("host", "mode"), [("http://my.server:8080", "online"), ("https://api.wandb.ai", "offline")])
def test_the_key_of_ones_own_server_counts(host, mode, tmp_path, monkeypatch, capsys):
    (tmp_path / "netrc").write_text(f"machine my.server:8080 login user password {'a' * 40}\n")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", host)
    wandb.teardown()  # its settings are read once
    modes = []
    fake(monkeypatch, init=lambda mode, **_: modes.append(mode) or fake_run(finish=lambda **_: None))
    WandbRun(tmp_path, "abc123", {}, "project").close(0)
    assert modes == [mode]
    assert "W&B: offline: wandb sync there" in capsys.readouterr().err


def test_trackers_come_from_the_configuration(tiny, tmp_path):
    train.main([*tiny, "trackers={tensorboard: {name: tensorboard}}"])
    assert list((run_of(tmp_path) / "tensorboard").glob("events.*"))
    with pytest.raises(ConfigError, match=r"trackers\.board\.name: no tracker is named 'tensorbord'; did you mean"):
        train.main([*tiny, "exp.run=other", "trackers={board: {name: tensorbord}}"])
    assert not (run_of(tmp_path, "other") / "config.yaml").exists()

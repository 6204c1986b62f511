"""Reports: from runs to data, from data to figures and tables, and the shipped ones rebuilt."""

import json
from pathlib import Path

import pytest
from PIL import Image

import report
from foodgen.core import config
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.registry import build
from foodgen.core.settings import Report
from foodgen.evaluation.sweep import points_of
from foodgen.reporting.collecting import Hours
from foodgen.reporting.figures import Curves, Panels, SweepFigure, variant_of
from foodgen.reporting.plots import plot_sweep, sweep_axes
from foodgen.reporting.tables import ByClass, Comparison, RunsTable, SweepTable, number, replaced
from tests.conftest import ROOT


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path):
    """Two variants of two seeds, as train.py and inference.py leave them."""
    for place, run in enumerate(("plain-0", "plain-1", "fancy-0", "fancy-1")):
        folder = tmp_path / "runs" / run
        rows = [
            {"step": step, "images": 8 * step, "minutes": step / 60, "model/loss": 1 / step + place, "model/other": 5}
            for step in range(1, 11)
        ]
        write_rows(folder / "metrics.jsonl", rows)
        scores = {"fid": 10.0 + place, "kid": 0.123456789, "real_baseline": {"fid": 2.5, "kid": 0.0}, "step": 10}
        (folder / "metrics.json").write_text(json.dumps(scores))
    return tmp_path / "runs"


@pytest.fixture
def settings(runs, tmp_path):
    folders = [str(runs / name) for name in ("plain-0", "plain-1", "fancy-0", "fancy-1")]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "README.md").write_text("Before.\n<!-- variants -->\nold\n<!-- /variants -->\nAfter.\n")
    file = tmp_path / "report.yaml"
    file.write_text(
        f"""
target: {tmp_path}/report
gather:
  training.jsonl: {{name: rows, runs: {folders}, keys: [model/loss], every: 4}}
  scores.jsonl: {{name: scores, folders: {folders}}}
figures:
  loss.png: {{name: curves, data: training.jsonl, y: [model/loss]}}
tables:
  variants: {{name: comparison, data: scores.jsonl, metrics: [fid, kid], variants: {{plain: the plain, fancy: odd}}}}
"""
    )
    return [f"exp.config_path={file}"]


def test_a_report_is_gathered_once_and_rebuilt_from_its_data_alone(settings, runs, tmp_path):
    report.main(settings)
    folder = tmp_path / "report"
    text = (folder / "README.md").read_text()
    assert "| the plain | 2 | 10.50 (0.71) | 0.1235 (0) |" in text
    assert "| real training photos |  | 2.500 | 0.000 |" in text
    assert text.startswith("Before.\n<!-- variants -->\n")
    assert text.endswith("<!-- /variants -->\nAfter.\n")
    assert "old" not in text
    rows = [json.loads(line) for line in (folder / "data" / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["run"] == "fancy-1"] == [4, 8, 10]
    assert {*rows[0]} == {"run", "step", "images", "minutes", "model/loss"}
    picture = (folder / "figures" / "loss.png").read_bytes()
    for path in runs.rglob("*.json*"):
        path.unlink()
    report.main(settings)
    assert (folder / "README.md").read_text() == text
    assert (folder / "figures" / "loss.png").read_bytes() == picture
    with pytest.raises(DataError, match=r"plain-0/metrics\.json cannot be read"):
        report.main([*settings, "refresh=[scores.jsonl]"])
    assert (folder / "data" / "scores.jsonl").is_file()  # what could not be made anew stays
    with pytest.raises(ConfigError, match=r"no data file is named 'score\.jsonl'; did you mean 'scores\.jsonl'"):
        report.main([*settings, "refresh=[score.jsonl]"])


def test_a_text_without_the_tables_place_is_left_alone(settings, tmp_path):
    (tmp_path / "report" / "README.md").write_text("<!-- /variants --> <!-- variants -->")
    with pytest.raises(DataError, match="wants one <!-- variants --> and, after it, one"):
        report.main(settings)
    assert (tmp_path / "report" / "README.md").read_text() == "<!-- /variants --> <!-- variants -->"
    assert replaced("<!-- a --><!-- /a -->", "a", "table\n") == "<!-- a -->\n\ntable\n\n<!-- /a -->"


def test_arms_are_runs_without_their_seeds():
    assert [variant_of(run) for run in ("edm-0", "noise-cosine-12", "long", "a-b")] == [
        "edm",
        "noise-cosine",
        "long",
        "a-b",
    ]


def test_curves_average_seeds_and_name_what_is_missing(settings, tmp_path):
    report.main(settings)
    data = tmp_path / "report" / "data"
    drawn = []

    class Axis:
        def plot(self, x, y, **_):
            drawn.append((list(x), list(y)))

        def fill_between(self, x, low, high, **_):
            drawn.append((list(low), list(high)))

    rows = [json.loads(line) for line in (data / "training.jsonl").read_text().splitlines()]
    curves = Curves("training.jsonl", ["model/loss"])
    curves._line(Axis(), [row for row in rows if variant_of(row["run"]) == "plain"], "model/loss", "plain", 0)
    assert drawn[0] == ([32, 64, 80], pytest.approx([0.75, 0.625, 0.6]))
    assert drawn[1] == (pytest.approx([0.25, 0.125, 0.1]), pytest.approx([1.25, 1.125, 1.1]))
    with pytest.raises(DataError, match="no row of plain has model/nothing"):
        Curves("training.jsonl", ["model/nothing"])(data, tmp_path / "none.png")
    with pytest.raises(DataError, match=r"nothing\.jsonl cannot be read"):
        Curves("nothing.jsonl", ["a"])(data, tmp_path / "none.png")
    with pytest.raises(ValueError, match="x: hours is none of images, step, minutes"):
        Curves("training.jsonl", ["a"], x="hours")


def test_hours_add_up_over_runs_that_go_on_from_each_other_and_over_scored_models(tmp_path):
    """The first run is followed until the second begins; a validation stands at the minutes of the row before it."""
    rows = [
        {"run": "first", "step": 1, "images": 10, "minutes": 30.0},
        {"run": "first", "step": 1, "images": 10, "val/fid": 9.0},
        {"run": "first", "step": 2, "images": 20, "minutes": 60.0, "val/fid": 7.0},
        {"run": "first", "step": 3, "images": 30, "minutes": 90.0},
        {"run": "first", "step": 3, "images": 30, "val/fid": 8.0},
        {"run": "second", "step": 3, "images": 30, "minutes": 99.0, "val/fid": 5.0},
        {"run": "other", "step": 1, "images": 10, "minutes": 1.0, "val/fid": 1.0},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "metrics.json").write_text(json.dumps({"fid": 4.5}))
    training = {"file": str(tmp_path / "rows.jsonl"), "runs": ["first", "second"], "cores": 2}
    hours = Hours("fid", {"a GAN": training}, {"a cascade": {3.5: str(tmp_path / "metrics.json")}})
    hours(tmp_path / "hours.jsonl")
    found = [json.loads(line) for line in (tmp_path / "hours.jsonl").read_text().splitlines()]
    assert found == [
        {"run": "a GAN", "core_hours": 1.0, "images": 10, "fid": 9.0},
        {"run": "a GAN", "core_hours": 2.0, "images": 20, "fid": 7.0},
        {"run": "a GAN", "core_hours": 3.3, "images": 30, "fid": 5.0},
        {"run": "a cascade", "core_hours": 3.5, "fid": 4.5},
    ]
    Curves("hours.jsonl", y=["fid"], x="core_hours")(tmp_path, tmp_path / "hours.png")
    assert (tmp_path / "hours.png").is_file()
    with pytest.raises(DataError, match=r"metrics\.json: a row of a run has no kid"):
        Hours("kid", {}, {"a cascade": {3.5: str(tmp_path / "metrics.json")}})(tmp_path / "hours.jsonl")


def test_sweeps_are_drawn_a_line_for_each_other_setting(tmp_path):
    points = points_of({"guidance.scale": [2.0, 1.0], "sampler.name": ["heun", "euler"]})
    rows = [
        {
            "point": point,
            "fid": 5.0 * point["guidance.scale"],
            "kid": 1.0,
            "real_baseline_by_subset": {"fid": [1.0, 2.0]},
        }
        for point in points
    ]
    lines, spans = {}, []

    class Axis:
        def errorbar(self, x, y, errors, label, **_):
            lines[label] = (x, y)

        def axhspan(self, low, high, **_):
            spans.append((low, high))

        def __getattr__(self, name):
            return lambda *_, **__: None

    sweep_axes(Axis(), rows, "guidance.scale", "fid")
    assert lines == {"name heun": ([1.0, 2.0], [5.0, 10.0]), "name euler": ([1.0, 2.0], [5.0, 10.0])}
    assert spans == [(1.0, 2.0)]
    plot_sweep(rows, tmp_path, ["fid", "kid", "precision"])
    assert {path.name for path in tmp_path.iterdir()} == {"sweep-guidance.scale.png", "sweep-sampler.name.png"}
    write_rows(tmp_path / "sweep.jsonl", rows)
    SweepFigure("sweep.jsonl", "guidance.scale", ["fid"], log=True)(tmp_path, tmp_path / "again.png")
    table = SweepTable("sweep.jsonl", {"scale": "guidance.scale"}, ["fid"])(tmp_path).splitlines()
    assert table[:3] == ["| scale | FID |", "| --- | --- |", "| 2.0 | 10.00 |"]


def test_pictures_stand_beside_each_other(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (30, 60), "red").save(tmp_path / f"{name}.png")
    Panels({"first": "a.png", "second": "b.png"}, top=0.5)(tmp_path, tmp_path / "figures" / "both.png")
    with Image.open(tmp_path / "figures" / "both.png") as picture:
        assert picture.width > picture.height
    with pytest.raises(DataError, match=r"c\.png"):
        Panels({"third": "c.png"})(tmp_path, tmp_path / "none.png")


def test_tables_of_runs_and_numbers(tmp_path):
    validation = {"run": "a", "step": 9, "images": 1200, "val/fid": 3.0}  # as a run ends that validates
    rows = [{"run": "a", "step": 5, "images": 600, "minutes": 0.1, "loss": 2.0}]
    write_rows(tmp_path / "t.jsonl", [*rows, {"run": "a", "step": 9, "images": 1200, "minutes": 0.2}, validation])
    assert RunsTable("t.jsonl", ["loss"])(tmp_path).splitlines()[2] == "| a | 9 | 1,200 | 0.2 | 100 | 2.000 |"
    assert [number(value) for value in (None, 123456.0, 1234.5, 23.28, 0.012346)] == [
        *["", "123,456", "1234", "23.28", "0.01235"]
    ]
    with pytest.raises(DataError, match=r"t\.jsonl: a row of a has no fid"):
        Comparison("t.jsonl", {"a": "a"}, ["fid"])(tmp_path)
    with pytest.raises(DataError, match="there is no run of b"):
        Comparison("t.jsonl", {"b": "b"}, ["loss"])(tmp_path)


SHIPPED = sorted((ROOT / "configs" / "report").glob("*.yaml"))


def test_there_are_reports():
    assert "diffusion" in {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_reports_tables_follow_from_the_committed_data(path, tmp_path, monkeypatch):
    """All tables made anew of reports/*/data are, to the letter, those of the reports."""
    settings = config.load([f"exp.config_path={path}"], Report)
    shipped = Path(settings.target)
    missing = [name for name in settings.gather if not (shipped / "data" / name).is_file()]
    assert not missing
    text = (shipped / "README.md").read_text()
    for mark, node in settings.tables.items():
        table = build("tables", node, f"tables.{mark}")(shipped / "data")
        assert replaced(text, mark, table) == text, mark
    for name in settings.figures:
        assert (shipped / "figures" / name).is_file()
        assert f"figures/{name}" in text


def test_accuracy_by_class_and_the_mark_of_seen_features(tmp_path):
    (tmp_path / "d.json").write_text(
        json.dumps({"classifier/label_accuracy_by_class": {"a_b": [0.1, 0.9], "c": [0.5, 0.6]}})
    )
    assert ByClass("d.json")(tmp_path).splitlines()[2:] == ["| c | 0.5000 | 0.6000 |", "| a b | 0.1000 | 0.9000 |"]
    with pytest.raises(DataError, match="there is no other"):
        ByClass("d.json", "other")(tmp_path)
    write_rows(tmp_path / "s.jsonl", [{"run": "a-0", "e/fid": 2.0, "fid": 3.0, "trained_against": ["e"]}])
    assert (
        Comparison("s.jsonl", {"a": "A"}, ["fid", "e/fid"])(tmp_path).splitlines()[2] == "| A | 1 | 3.000 | 2.000 \\* |"
    )
    sampled = {"run": "b", "fid": 3.0, "by_seed": {"fid": [2.0, 4.0]}}
    write_rows(tmp_path / "b.jsonl", [sampled])
    assert Comparison("b.jsonl", {"b": "B"}, ["fid"])(tmp_path).splitlines()[2] == "| B | 2 | 3.000 (1.4) |"

"""The notebook runs from its first to its last cell, at tiny settings."""

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from foodgen.data.synthetic import draw_set
from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "foodgen.ipynb"
NETWORK = "objective.model.network"
TINY = f"{NETWORK}.width=32 {NETWORK}.depth=2 {NETWORK}.widths=[8,16] data.train_batch_size=8 train.log_step=1"


@pytest.mark.long
def test_it_runs(tmp_path, monkeypatch):
    draw_set(tmp_path / "photos", 32, 14)
    classes = sorted(path.name for path in (tmp_path / "photos").iterdir() if path.is_dir())[:3]
    for path in (tmp_path / "photos").rglob("*.png"):  # photos are JPEGs
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    for name, value in {
        "SOURCE": tmp_path / "photos", "SIZE": 32, "MINUTES": 0.05, "DISHES": ",".join(classes), "HELD_BACK": 3,
        "OVERRIDES": f"{TINY} exp.device=cpu",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"FOODGEN_{name}", str(value))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "generated: {'fid'" in printed and "real photos: {'fid'" in printed
    assert (tmp_path / "runs" / "notebook" / "metrics.jsonl").is_file()


def test_no_outputs_are_kept():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)

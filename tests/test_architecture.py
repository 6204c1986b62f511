"""The design holds: imports form a star, modules import, files stay small, nothing branches on the kind of model."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import foodgen

ROOT = Path(foodgen.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")
LEAVES = {"diffusion", "objectives", "samplers", "data", "metrics", "reporting", "evaluation", "web"}
ALLOWED = {leaf: {leaf, "core"} for leaf in LEAVES} | {
    "core": {"core"},
    "layers": {"layers", "core"},
    "models": {"layers", "core"},
    "training": {"training", "evaluation", "core"},
    "builders": {*LEAVES, "layers", "models", "training", "core", "builders"},  # diffusers.py translates a network
    "commands": {"core", "builders", "training", "reporting", "data", "web", "commands"},
}
SCRIPTS = {"core", "commands", "training"}


def imported(path):
    """Second names of the foodgen modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "foodgen":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_inwards(path):
    room = path.relative_to(ROOT).parts[0]
    assert imported(path) <= ALLOWED[room]


def test_scripts_import_no_leaf():
    for script in ROOT.parent.glob("*.py"):
        assert imported(script) <= SCRIPTS, script.name


def test_no_model_imports_a_model():
    for path in (ROOT / "models").glob("*.py"):
        assert "models" not in imported(path)


def test_every_module_imports():
    for module in pkgutil.walk_packages(foodgen.__path__, prefix="foodgen."):
        importlib.import_module(module.name)


def test_package_files_are_empty():
    for path in ROOT.rglob("__init__.py"):
        assert path.parent == ROOT or not path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text))


def lines_of(path, name):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node.end_lineno - node.lineno + 1
    raise AssertionError(f"{name} is not in {path}")


def test_the_loop_and_the_samplers_stay_short():
    trainer = ROOT / "training" / "trainer.py"
    assert sum(lines_of(trainer, name) for name in ("train", "step", "optimize")) < 80
    sampler = ROOT / "samplers" / "sampler.py"
    base = sum(lines_of(sampler, name) for name in ("__call__", "denoise"))
    for path, name in (("deterministic", "Euler"), ("deterministic", "Heun"), ("ancestral", "Ancestral")):
        assert lines_of(ROOT / "samplers" / f"{path}.py", name) + base < 60
        assert lines_of(ROOT / "samplers" / f"{path}.py", name) < 35
    assert lines_of(ROOT / "samplers" / "dpm_solver.py", "DPMSolver") < 35


def test_training_and_evaluation_never_ask_for_the_kind_of_model():
    words = {"diffusion", "gan", "GAN", "denoiser", "Denoiser", "discriminator", "Discriminator", "generator"}
    for path in [*(ROOT / "training").glob("*.py"), *(ROOT / "evaluation").glob("*.py")]:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & words, path.name

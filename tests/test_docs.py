"""Code blocks of README, pages and cards: what can run in seconds runs, of the rest the configuration is checked.

A comment above a block says what it needs: `gpu`, `hours`, `minutes`, `install`; `sketch` is no program. A block
without one runs here, in order, in a folder with small photos of all 101 classes.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import demo
import export
import inference
import prepare_data
import report
import serve
import train
from foodgen.builders.models import make_model
from foodgen.commands import check, cli
from foodgen.core import config
from foodgen.core.settings import Check, Config, ExportConfig, Prepare, Report, Serve
from foodgen.training.checkpoint import read_meta
from tests.core.test_config import from_its_configuration
from tests.runs import score_by_colours

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.ru.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = [*sorted((ROOT / "checkpoints").glob("*/README.md"))]
BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
SCHEMAS = {
    "train.py": (train, Config),
    "inference.py": (inference, Config),
    "export.py": (export, ExportConfig),
    "prepare_data.py": (prepare_data, Prepare),
    "report.py": (report, Report),
    "demo.py": (demo, Config),
    "serve.py": (serve, Serve),
    "check": (check, Check),
}
OTHER_TOOLS = {"conda", "pip", "source", "wandb", "git", "cd", "docker", "sbatch"}
SMALLER = {  # what makes a command of the pages one of seconds
    "train.py": ["train.steps=2", "train.log_step=1", "data.train_batch_size=8", "train.grid_count=8"],
    "inference.py": ["inference.baseline_draws=0", "data.val_batch_size=32"],
    "prepare_data.py": ["val_per_class=1", "test_per_class=1"],
}


def blocks(page):
    """(what it needs, language, text) of each block."""
    return [(needs or "", language, text) for needs, language, text in BLOCK.findall(page.read_text())]


def commands(text):
    """The commands of a block of shell, each a list of words."""
    joined = text.replace("\\\n", " ")
    lines = [command for line in joined.splitlines() for command in line.split(" && ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def arguments_of(words):
    """(script, its arguments) if the command calls one of the scripts."""
    if words[0] == "foodgen":
        return words[1], cli.with_configuration(words[1], words[2:])
    place = next((i for i, word in enumerate(words) if word in SCHEMAS), None)
    return None if place is None else (words[place], words[place + 1 :])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder like the repository's, with three photos of each class, and some photos to prepare."""
    folder = tmp_path_factory.mktemp("sandbox")
    for name in ("configs", "checkpoints", "reports", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    for number, name in enumerate(read_meta(ROOT / "checkpoints" / "gan")["classes"]):
        for split, count in (("train", 2), ("val", 1), ("test", 1)):
            parent = folder / "data" / "food101" / split / name
            parent.mkdir(parents=True)
            for index in range(count):
                noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8)
                noise[..., 0] = 2 * number
                Image.fromarray(noise.numpy()).save(parent / f"{split}-{index}.jpg")
    return folder


@pytest.mark.parametrize("page", PAGES + CARDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_names_what_there_is(page, monkeypatch):
    monkeypatch.setattr("foodgen.builders.models.load_pretrained", from_its_configuration)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for _, language, text in blocks(page):
        if language == "yaml":
            assert OmegaConf.create(text)
        if language == "python":
            compile(text, str(page), "exec")
        for words in commands(text) if language == "sh" else []:
            called = arguments_of(words)
            if words[0] == "make":
                assert words[1] in targets
            elif words[0] == "sh":
                assert (ROOT / words[1]).is_file()
            elif called is None:
                assert words[0] in OTHER_TOOLS, words
                assert all((ROOT / name).is_file() for name in words if name.startswith("requirements"))
            else:
                _, schema = SCHEMAS[called[0]]
                loaded = config.load(called[1], schema)
                if called[0] == "train.py" and "diffusers" not in str(loaded.codec["name"]):  # whose path is made up
                    make_model(loaded, ["a", "b"], torch.device("meta"))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_can_run_in_seconds_runs(page, sandbox, plates, monkeypatch):
    monkeypatch.chdir(sandbox)
    shutil.rmtree("runs", ignore_errors=True)  # of another page
    score_by_colours(monkeypatch)
    small = [
        "dataset={name: folder}",
        f"data.input_train_dir={plates / 'train'}",
        f"data.input_val_dir={plates / 'test'}",
    ]
    for needs, language, text in blocks(page):
        if needs or language not in ("sh", "python"):
            continue
        if language == "python":
            exec(compile(text, str(page), "exec"), {"__name__": "page"})
            continue
        for words in commands(text):
            script, arguments = arguments_of(words)
            if script == "prepare_data.py":
                arguments = [
                    a.replace("source=PATH", f"source={plates}").replace("=data/food10", "=data/new") for a in arguments
                ]
                if "prepare_ten" in arguments[0]:
                    arguments.append("classes=[pizza,soup]")
            arguments = [*arguments, *(small if "configs/small/" in arguments[0] else []), *SMALLER.get(script, [])]
            if script == "inference.py" and not any(word.startswith("inference.count") for word in words):
                arguments.append("inference.count=16")
            status = SCHEMAS[script][0].main(arguments)
            assert not status, (page.name, words, status)


def test_messages_that_the_troubleshooting_page_explains_exist():
    source = "".join(path.read_text() for path in [*(ROOT / "foodgen").rglob("*.py"), ROOT / "Makefile"])
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # strings in pieces
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines():
        if line.startswith("| ") and "`" in line:
            for message in re.findall(r"`([^`]*)`", line.split(" | ")[0]):
                for part in re.split(r"…|\d+|%\w", message):
                    assert part.strip(" '?()") in source, part


def test_links_lead_somewhere():
    reports = [*sorted((ROOT / "reports").rglob("README*.md")), ROOT / "reports" / "runs.md"]
    for page in PAGES + CARDS + reports:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 130
    assert sys.version_info[:2] in ((3, 11), (3, 12))

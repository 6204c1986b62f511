"""pip installs what the locks name and refuses all else; make installs what is needed, once."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

# ---- pip refuses what differs


def wheel(folder, name="tidbit"):
    """A package of one module, as a wheel; its sha256."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "TASTE = 'sweet'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("case", "refusal"),
    [
        ("right", None),
        ("altered hash", "DO NOT MATCH THE HASHES"),
        ("altered file", "DO NOT MATCH THE HASHES"),
        ("no hash", "Hashes are required"),
        ("no version", "must have their versions pinned"),
        ("a built file is missing", "No matching distribution"),
    ],
)
def test_pip_installs_what_the_hash_names_and_nothing_else(case, refusal, tmp_path):
    """With the options of the Makefile, from a folder, without an index."""
    found = wheel(tmp_path / "wheels")
    lines = {
        "altered hash": f"tidbit==1.0 --hash=sha256:{found[:-1]}{'0' if found[-1] != '0' else '1'}",
        "no hash": "tidbit==1.0",
        "no version": f"tidbit --hash=sha256:{found}",
    }
    (tmp_path / "lock.txt").write_text(lines.get(case, f"tidbit==1.0 --hash=sha256:{found}") + "\n")
    (built,) = (tmp_path / "wheels").iterdir()
    if case == "altered file":
        with zipfile.ZipFile(built, "a") as archive:
            archive.writestr("tidbit_more.py", "TASTE = 'bitter'\n")
    if case == "a built file is missing":  # a source's own build script never runs
        built.rename(built.with_name("tidbit-1.0.tar.gz"))
    options = re.search(r"^INSTALL := .* install (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    command = [sys.executable, "-m", "pip", "--isolated", "install", *options, "--no-index"]
    command += ["--find-links", "wheels", "--target", "site", "-r", "lock.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == (refusal is None), done.stderr
    assert (tmp_path / "site" / "tidbit.py").exists() == (refusal is None)
    assert refusal is None or refusal in done.stderr


# ---- make installs what is needed, once


@pytest.fixture
def make(tmp_path):
    """Runs make beside copies of the locks, with a Python that notes its arguments; what pip was told to install."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "ruff", "mypy"):
        (tools / name).write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/log"\ntest ! -e broken\n')
        (tools / name).chmod(0o755)

    def run(*arguments, python=sys.executable, status=0):
        (tools / "log").write_text("")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        command = ["make", "--no-print-directory", *arguments, f"PYTHON={python}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert bool(done.returncode) == bool(status), done.stderr
        installs = [line for line in (tools / "log").read_text().splitlines() if line.startswith("-m pip install")]
        assert all("--require-hashes" in line and "--no-deps" in line for line in installs)
        return [re.findall(r"locks/(\w+)\.txt", line) for line in installs], done.stdout

    return run


RUN = ["torch", "run", "weights"]
DEVELOP = ["serve", "develop"]


def test_a_newcomer_installs_what_foodgen_runs_on_and_a_developer_the_rest(make):
    assert make("demo")[0] == [RUN]
    assert make("demo")[0] == []
    assert make("reports")[0] == []
    assert make("test")[0] == [DEVELOP]
    assert make("setup")[0] == make("demo")[0] == []


def test_an_edited_lock_is_installed(make, tmp_path):
    assert make("setup")[0] == [RUN, DEVELOP]
    (tmp_path / "locks" / "develop.txt").write_text("# another\n")
    assert make("demo")[0] == []
    assert make("lint")[0] == [DEVELOP]
    (tmp_path / "locks" / "run.txt").write_text("# another\n")
    assert make("lint")[0] == [RUN, DEVELOP]


def test_an_installation_that_failed_is_tried_again(make, tmp_path):
    (tmp_path / "broken").touch()
    assert make("setup", status=2)[0] == [RUN]
    assert make("setup", status=2)[0] == [RUN]
    (tmp_path / "broken").unlink()
    assert make("setup")[0] == [RUN, DEVELOP]


def test_another_python_is_refused_before_anything_is_made(make, tmp_path):
    shutil.rmtree(tmp_path / ".venv" / "bin")
    (tmp_path / ".venv" / "bin").mkdir()
    installs, printed = make("demo", python="false", status=2)
    assert "foodgen wants Python 3.11 or 3.12: make demo PYTHON=python3.11" in printed
    assert installs == [] and [path.name for path in (tmp_path / ".venv" / "bin").iterdir()] == ["log"]

"""The locks hold all that foodgen asks for, exactly and with hashes; they can be renewed, and licences are told."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

LOCKS = {path.stem: path for path in sorted((ROOT / "locks").glob("*.txt"))}
TOGETHER = ["torch", "run", "serve", "develop"]  # each adds to those before it
ALONE = {"weights", "benchmarks"}  # without what they ask for
REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))
PIN = re.compile(r"^([\w.-]+)==([^\s;#]+)", re.MULTILINE)
SHA256 = re.compile(r"    --hash=sha256:[0-9a-f]{64}")


def entries(lock):
    """(package, version, marker, lines of hashes) of each package of a lock."""
    for block in re.split(r"^(?=[\w])", LOCKS[lock].read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        lines = [line.removesuffix("\\").rstrip() for line in block.splitlines()]
        requirement = Requirement(lines[0])
        yield requirement.name, str(requirement.specifier).removeprefix("=="), requirement.marker, lines[1:]


def active(lock, **place):
    """{package: version} of a lock where the environment is this one, but for `place`."""
    return {name: pin for name, pin, marker, _ in entries(lock) if marker is None or marker.evaluate(place)}


def script_of(name):
    """A script of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- the locks are whole


def test_there_are_these_locks():
    assert {*LOCKS} == {*TOGETHER, *ALONE}


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_every_pin_is_locked_at_its_version(path):
    """An edit of requirements*.txt without `make lock` is seen."""
    locked = {name: pin for lock in LOCKS for name, pin, _, _ in entries(lock)}
    text = path.read_text(encoding="utf-8")
    for name, pin in PIN.findall(text):
        assert locked.get(canonicalize_name(name)) == pin, f"{name}=={pin}: run make lock"
    for line in text.splitlines():
        assert not line or line.startswith(("#", "-r requirements")) or PIN.match(line), f"{line} is no exact version"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_an_exact_version_and_hashes(lock):
    found = [*entries(lock)]
    assert found
    for name, pin, _, hashes in found:
        assert re.fullmatch(r"\d[\w.]*", pin), f"{name}{pin} is no exact version"
        assert hashes, f"{name} has no hash"
        assert all(SHA256.fullmatch(line) for line in hashes), f"{name} has other lines than sha256"


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_a_place_to_fetch_from(lock):
    """The index is the machine's own: no URL, host, path or option of pip stands in a lock."""
    for line in LOCKS[lock].read_text(encoding="utf-8").splitlines():
        if not line.startswith(("# ", "    --hash=sha256:")):
            assert Requirement(line.removesuffix("\\")).url is None, line
        assert "://" not in line and "@" not in line, line


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_a_lock_serves_both_pythons(python):
    """Each package has one version there, in one lock, and all direct ones are among them."""
    place = {"python_version": python, "python_full_version": f"{python}.4", "sys_platform": "linux"}
    place |= {"platform_machine": "x86_64", "platform_system": "Linux"}
    found = [name for lock in [*TOGETHER, "weights"] for name in active(lock, **place)]
    assert len(found) == len({*found})
    for path in REQUIREMENTS:
        if path.name != "requirements-benchmarks.txt":
            assert {canonicalize_name(name) for name, _ in PIN.findall(path.read_text())} <= {*found}, path.name


@pytest.mark.parametrize("count", range(2, 5), ids=lambda count: TOGETHER[count - 1])
def test_locks_hold_all_that_their_packages_ask_for(count):
    """pip looks nothing up, so what a package needs is in its lock or one before, at a version that it takes."""
    pins = {name: pin for lock in TOGETHER[:count] for name, pin in active(lock).items()}
    left, seen = [(name, "") for name in pins], set()
    while left:
        name, extra = left.pop()
        try:
            asked = distribution(name).requires or []
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed: the environment was not made from the locks")
        for need in map(Requirement, asked):
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            wanted = canonicalize_name(need.name)
            assert wanted in pins, f"{name} needs {need}"
            assert need.specifier.contains(pins[wanted], prereleases=True), f"{name} needs {need}, not {pins[wanted]}"
            more = {(wanted, other) for other in need.extras} - seen
            seen |= more
            left += more


def test_what_is_installed_is_what_is_locked():
    if not list(Path(sys.prefix).glob("installed-develop-*")):
        pytest.skip("the environment was not made by make setup")
    for lock in [*TOGETHER, "weights"]:
        for name, pin in active(lock).items():
            assert version(name) == pin, f"{name}: run make setup"


WITHOUT = """
import importlib.abc, sys

away = sys.argv.pop(1).split(",")

class Refuses(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in away:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuses())
from foodgen.commands import cli

cli.main(["list", "samplers"])  # imports all parts
cli.entry()
"""


def test_what_everyone_installs_is_enough():
    """With the packages of the tests and of the page away, all parts load, and the page names what it misses."""
    kept = {name for lock in ("torch", "run", "weights") for name in active(lock)}
    others = {name for lock in ("serve", "develop") for name in active(lock)} - kept
    owners = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}
    away = ",".join(sorted(module for module, names in owners.items() if names <= others))
    assert "gradio" in away and "onnx" in away and "torch," not in away

    command = [sys.executable, "-c", WITHOUT, away, "serve", "exp.config_path=configs/serve.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "  euler: First order" in done.stdout, done.stderr
    assert done.returncode == 2 and "serve wants the package gradio: pip install -r" in done.stderr
    assert "Traceback" not in done.stderr


def test_extras_of_the_package_are_the_same_versions():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = {name: pin for lock in LOCKS for name, pin, _, _ in entries(lock)}
    for name, pin in PIN.findall("\n".join(line for lines in extras.values() for line in lines)):
        assert locked[canonicalize_name(name)] == pin


def test_files_that_install_name_the_locks_as_they_are():
    files = [ROOT / name for name in ("Dockerfile", "environment.yml", "Makefile", "README.md", "README.ru.md")]
    for path in [*files, *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]:
        for name in re.findall(r"locks/(\w+)\.txt", path.read_text(encoding="utf-8")):
            assert name in LOCKS, f"{path.name}: {name}"
    of_cpus = dict(PIN.findall((ROOT / "Dockerfile").read_text().replace(" ", "\n")))  # they come without hashes
    assert of_cpus == {name: active("torch")[name] for name in ("torch", "torchvision")}


# ---- locks are renewed, and licences told


def test_a_renewed_lock_keeps_versions_and_drops_what_no_python_here_needs(monkeypatch):
    """The compiler begins from the versions that are locked; entries for other Pythons and systems go."""
    lock = script_of("lock")
    hashed = " \\\n    --hash=sha256:" + "0" * 64 + "\n"
    kept = {
        "sushi": f"sushi==1.0{hashed}",
        "ramen": f"ramen==1.0 ; python_full_version < '3.12'{hashed}ramen==2.0 ; python_full_version >= '3.12'{hashed}",
        "wasabi": f"wasabi==3.1 ; sys_platform == 'darwin'{hashed}",
    }
    dropped = f"natto==2.2 ; python_full_version >= '3.13'{hashed}soba==1.0 ; implementation_name == 'pypy'{hashed}"
    given = []

    def compile_lock(command, **_):
        (target,) = (Path(word.split("=", 1)[1]) for word in command if word.startswith("--output-file="))
        given.append(target.read_text())
        target.write_text("".join(kept.values()) + dropped)

    monkeypatch.setattr(lock.subprocess, "run", compile_lock)
    assert lock.compiled(["requirements.txt"], "sushi==1.0\n") == kept
    assert given == ["sushi==1.0\n"]
    assert Marker("python_full_version < '3.13'").evaluate(lock.PLACES[0])


def test_the_page_of_licences_names_every_locked_package():
    """Each with the version of the lock and a licence, and no other."""
    rows = re.findall(
        r"^\| ([\w.-]+) \| (\d\S*) \| (\S.*?) \| \w+ \|$", (ROOT / "docs" / "licences.md").read_text(), re.M
    )
    assert len(rows) == len({name for name, _, _ in rows})
    assert {(name, pin) for name, pin, _ in rows} == {row[:2] for lock in LOCKS for row in entries(lock)}, "make lock"
    for name, _, licence in rows:
        assert re.fullmatch(r"[(]*[\w.+-]+[)]*( (AND|OR|WITH) [(]*[\w.+-]+[)]*)*", licence), f"{name}: {licence}"
        assert "UNKNOWN" not in licence, name
        assert not re.search(r"\bA?L?GPL", licence), f"{name}: the page says that there is none"


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"License-Expression": "MIT AND PSF-2.0"}, "MIT AND PSF-2.0"),
        ({"License": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT"),
        ({"License": "BSD 3-Clause License\n\nCopyright"}, "BSD-3-Clause"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"Classifier": "License :: OSI Approved :: ISC License (ISCL)"}, "ISC"),
        ({"License": "UNKNOWN"}, None),
        ({}, None),
    ],
)
def test_a_package_that_does_not_say_its_licence_is_refused(told, licence, monkeypatch):
    from email.message import Message

    licences, message = script_of("licences"), Message()
    for key, value in told.items():
        message[key] = value
    monkeypatch.setattr(licences, "metadata", lambda package: message)
    if licence is None:
        with pytest.raises(SystemExit, match="tidbit does not say its licence"):
            licences.licence_of("tidbit")
    else:
        assert licences.licence_of("tidbit") == licence

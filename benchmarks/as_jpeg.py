"""A folder of drawn images once more as JPEG, to measure what that does to scores.

python3 -m benchmarks.as_jpeg exp.config_path=configs/benchmarks/as_jpeg.yaml source=FOLDER target=FOLDER

The photos of the data set are JPEG of quality 75 with halved colours (4:2:0), which is what comes out.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pydantic.dataclasses import dataclass

from foodgen.core import command_line, config
from foodgen.core.errors import UserError
from foodgen.core.settings import STRICT, OnlyPath
from foodgen.data.folder import list_folder


@dataclass(config=STRICT)
class Settings:
    """What this script reads: class folders, new ones, and the quality of JPEG."""

    exp: OnlyPath
    source: str
    target: str
    quality: int


def convert(source: Path, target: Path, quality: int = 75) -> int:
    """Write every image of the class folders of `source` into those of `target`, which is new; how many."""
    listing = list_folder(source)
    if target.exists():
        raise UserError(f"target: {target} exists already")
    target.mkdir(parents=True)
    for name in listing.files:
        path = (target / name).with_suffix(".jpg")
        path.parent.mkdir(exist_ok=True)
        with Image.open(source / name) as image:
            image.convert("RGB").save(path, "JPEG", quality=quality, subsampling=2)
    return len(listing.files)


def main(arguments: Sequence[str]) -> None:
    """Convert, and say how many."""
    settings = config.load(arguments, Settings)
    count = convert(Path(settings.source), Path(settings.target), settings.quality)
    print(f"{count} images in {settings.target}")


if __name__ == "__main__":
    command_line.run(main)

"""A folder of drawn images once more as JPEG, to measure what that does to scores.

python3 -m benchmarks.as_jpeg SOURCE TARGET [QUALITY]

The photos of the data set are JPEG of quality 75 with halved colours (4:2:0), which is what comes out.
"""

import sys
from pathlib import Path

from PIL import Image

from foodgen.data.folder import list_folder


def convert(source: Path, target: Path, quality: int = 75) -> int:
    """Write every image of the class folders of `source` into those of `target`, which must not exist; how many."""
    listing = list_folder(source)
    target.mkdir(parents=True)
    for name in listing.files:
        path = (target / name).with_suffix(".jpg")
        path.parent.mkdir(exist_ok=True)
        with Image.open(source / name) as image:
            image.convert("RGB").save(path, "JPEG", quality=quality, subsampling=2)
    return len(listing.files)


if __name__ == "__main__":
    count = convert(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 75)
    print(f"{count} images in {sys.argv[2]}")

"""What tests of bad sources share: pictures, a preparation of them, and what came out."""

import io

import numpy as np
from PIL import Image

from foodgen.data.prepare import prepare


def image_of(seed, size=(16, 16)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image, kind="PNG", **options):
    whole = io.BytesIO()
    image.save(whole, kind, **options)
    return whole.getvalue()


def picture(seed):
    return encoded(image_of(seed))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def class_folders(root, classes=("apple",), count=2):
    for number, name in enumerate(classes):
        for index in range(count):
            put(root / name / f"{index}.png", picture(100 * number + index))
    return root


def prepared(source, target, **changes):
    settings = {"image_size": 16, "smallest": 8, "test_per_class": 0, "val_per_class": 0, "quality": 95, "seed": 0}
    return prepare(str(source), target, **{**settings, **changes})


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def dropped(manifest):
    return {drop["photo"]: drop["reason"] for drop in manifest["dropped"]}

"""Speed beside its peers, on this machine: one table as Markdown, and the same as JSON.

python3 -m benchmarks.speed exp.config_path=configs/benchmarks/speed.yaml [sections=[training,gan]]

All subjects of a section take turns within each round, so that a machine that slows down slows all of them alike.
Given are images a second, the median of the rounds and their range. Wants data/food101 (prepare_data.py) and, for one
of the peers, requirements-benchmarks.txt.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from foodgen.builders.training import make_loader, make_model, make_trainer
from foodgen.core import command_line
from foodgen.core import config as configuration
from foodgen.core.devices import keep_freed_memory
from foodgen.core.settings import STRICT, Config, OnlyPath
from foodgen.data.folder import Folder
from foodgen.data.loader import Loader
from foodgen.data.packed import Packed
from foodgen.metrics.feature_cache import features_of
from foodgen.metrics.fid import frechet_distance
from foodgen.metrics.inception import InceptionFeatures

ROUNDS, CPU = 5, torch.device("cpu")
PHOTOS = Path("data/food101")
Subject = tuple[int, Callable[[], Any]]  # images, and what handles them
Section = Literal["training", "gan", "compiled", "inception", "loading"]


@dataclass(config=STRICT)
class Settings:
    """What this script reads: a JSON file, to which results are added, and the sections to measure."""

    exp: OnlyPath
    target: str
    sections: list[Section]


def ours(path: str, batch: int, *overrides: str) -> Subject:
    """A training step of a configuration, from uint8 photos to moved weights."""
    config = configuration.load([f"exp.config_path={path}", f"data.train_batch_size={batch}", *overrides], Config)
    images = Packed(PHOTOS / "val", 64)
    model = make_model(config, images.classes, CPU)
    trainer = make_trainer(config, model, make_loader(config, model, images).batches)
    pixels, labels = images.batch(range(0, 20 * batch, 20))
    return batch, lambda: trainer.step(1, pixels, labels)


def peer(model: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], batch: int, precision: str) -> Subject:
    """A training step as the peers' documentation has it: loss, clipping at 1, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pixels, _ = Packed(PHOTOS / "val", 64).batch(range(0, 20 * batch, 20))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = loss(pixels.float() / 255)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return batch, step


def diffusers_unet(batch: int, precision: str) -> Subject:
    """diffusers' tutorial on unconditional training, its network cut to 22 million weights."""
    from diffusers import DDPMScheduler, UNet2DModel

    down = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    up = ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D")
    widths = (96, 192, 192, 192)
    model: Any = UNet2DModel(64, 3, 3, block_out_channels=widths, down_block_types=down, up_block_types=up)
    scheduler: Any = DDPMScheduler(num_train_timesteps=1000)

    def loss(photos: torch.Tensor) -> torch.Tensor:
        clean = 2 * photos - 1
        noise, times = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        noisy = scheduler.add_noise(clean, noise, times)
        return nn.functional.mse_loss(model(noisy, times, return_dict=False)[0], noise)

    return peer(model, loss, batch, precision)


def lucidrains_unet(batch: int, precision: str) -> Subject:
    """denoising-diffusion-pytorch as its README has it, the network cut to 20 million weights."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    diffusion = GaussianDiffusion(Unet(dim=48, dim_mults=(1, 2, 4, 8)), image_size=64, timesteps=1000)
    return peer(diffusion, diffusion, batch, precision)


def training(batch: int = 16) -> dict[str, Subject]:
    """One step of a U-Net of about 22 million weights at 64x64."""
    return {
        "foodgen, edm.yaml, by default": ours("configs/edm.yaml", batch),
        "foodgen, edm.yaml, fp32": ours("configs/edm.yaml", batch, "train.precision=fp32"),
        "diffusers, by default (fp32)": diffusers_unet(batch, "fp32"),
        "diffusers, bf16": diffusers_unet(batch, "bf16"),
        "lucidrains, by default (fp32)": lucidrains_unet(batch, "fp32"),
        "lucidrains, bf16": lucidrains_unet(batch, "bf16"),
    }


def gan(batch: int = 32) -> dict[str, Subject]:
    """One step of both players, uncompiled."""
    slim = "configs/projected_gan_slim.yaml"
    return {
        "projected_gan_slim.yaml": ours(slim, batch),
        "its players generating for themselves": ours(slim, batch, "objective.share_fakes=false"),
        "it in fp32": ours(slim, batch, "train.precision=fp32"),
        "it in fp32, channels first": ours(slim, batch, "train.precision=fp32", "train.channels_last=false"),
        "projected_gan.yaml": ours("configs/projected_gan.yaml", batch),
    }


def compiled(batch: int = 32) -> dict[str, Subject]:
    """A training step of the recipes for CPUs, with train.compile and without; compiling itself does not count."""
    subjects = {}
    for name in ("small/food101", "small/food101_gan", "projected_gan_slim"):
        subjects[f"{name}.yaml"] = ours(f"configs/{name}.yaml", batch)
        subjects[f"{name}.yaml, compiled"] = ours(f"configs/{name}.yaml", batch, "train.compile=true")
    return subjects


def inception(count: int = 202) -> dict[str, Subject]:
    """Scoring `count` images against as many, from PNG files to the distance."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run([sys.executable, "-c", FLATTEN, str(PHOTOS), str(folder), str(count)], check=True)
    extract = InceptionFeatures(CPU)
    sets = {name: Folder(folder / name, 64) for name in ("test", "val")}

    def score(cache: Path) -> float:
        kept = features_of(extract, sets["test"], 32, cache)
        return frechet_distance(features_of(extract, sets["val"], 32), kept)

    def cold() -> float:
        with tempfile.TemporaryDirectory() as empty:
            return score(Path(empty))

    command = [sys.executable, "-m", "pytorch_fid", "--device", "cpu", "--num-workers", "0"]
    flat = [str(folder / f"{name}-flat") for name in sets]
    score(folder / "kept")
    return {
        "foodgen, cold": (2 * count, cold),
        "foodgen, reference cached": (2 * count, lambda: score(folder / "kept")),
        "python -m pytorch_fid": (
            2 * count,
            lambda: subprocess.run([*command, *flat], check=True, capture_output=True),
        ),
    }


FLATTEN = """
import sys
from pathlib import Path
from PIL import Image
source, target, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for name in ("test", "val"):
    (target / f"{name}-flat").mkdir()
    for number, path in enumerate(sorted((source / name).glob("*/*.jpg"))[:: 2020 // count][:count]):
        (target / name / path.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(target / name / path.parent.name / f"{path.stem}.png")
            image.save(target / f"{name}-flat" / f"{number}.png")
"""


def loading(batch: int = 256, batches: int = 8) -> dict[str, Subject]:
    """Batches of uint8 photos in random order."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import PILToTensor

    def endless(loader: Any) -> Iterator[Any]:
        while True:
            yield from loader

    packed = Loader(Packed(PHOTOS / "train", 64), batch, 0, CPU, workers=0, keep_on_device=False).batches(0)
    folder = ImageFolder(str(PHOTOS / "train"), PILToTensor())
    torchs = endless(DataLoader(folder, batch, shuffle=True, num_workers=2, drop_last=True))
    return {
        "foodgen, packed": (batch * batches, lambda: [next(packed) for _ in range(batches)]),
        "ImageFolder, DataLoader, 2 workers": (batch * batches, lambda: [next(torchs) for _ in range(batches)]),
    }


def measure(subjects: dict[str, Subject]) -> dict[str, list[float]]:
    """Images a second in each round, after a first one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(ROUNDS + 1):
        for name, (images, handle) in subjects.items():
            began = time.perf_counter()
            handle()
            if number:
                found[name].append(images / (time.perf_counter() - began))
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure the sections, print their tables, write them all."""
    settings = configuration.load(arguments, Settings)
    target = Path(settings.target)
    known = {"training": training, "gan": gan, "compiled": compiled, "inception": inception, "loading": loading}
    keep_freed_memory()
    versions = {name: __import__(name).__version__ for name in ("torch", "torchvision", "diffusers")}
    facts: dict[str, Any] = {"cpu": torch.backends.cpu.get_cpu_capability(), "cores": torch.get_num_threads()}
    facts |= {"bf16": torch.cpu._is_avx512_bf16_supported(), "python": platform.python_version(), **versions}
    print("machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    results = {}
    for section in settings.sections:
        results[section] = measure(known[section]())
        print(f"\n| {section} | images a second | range |\n| --- | --- | --- |")
        for name, rates in results[section].items():
            print(f"| {name} | {median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} |", flush=True)
        kept = json.loads(target.read_text())["images_per_second"] if target.is_file() else {}
        target.write_text(
            json.dumps({"machine": facts, "rounds": ROUNDS, "images_per_second": kept | results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    command_line.run(main)

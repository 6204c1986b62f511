"""The run-level keys of a configuration, with their types, bounds and defaults."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from foodgen.core.bounds import (
    Above,
    BatchSize,
    Classes,
    Device,
    Few,
    Host,
    ImageCount,
    Length,
    Metrics,
    Name,
    Number,
    Pixels,
    Place,
    Positive,
    Seed,
    Word,
    are_different,
)

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Part = dict[str, Any]


@dataclass(config=STRICT)
class Exp:
    config_path: Place
    """the configuration file, or the name of a bundled one, such as edm or small/edm"""
    exp_dir: Place = "runs"
    """the folder that runs lie in"""
    run: Name | None = None
    """the run's name; the configuration file's if not given"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    seed: Seed = 0
    """of weights, order of images and noise"""
    use_wandb: bool = True
    """false leaves the tracker wandb out"""
    wandb_project: Word = "foodgen"
    """W&B's project"""
    dry_run: bool = False
    """print what a training would be and cost, take a few steps, and leave nothing behind"""


@dataclass(config=STRICT)
class Data:
    input_train_dir: Place = "data/food101/train"
    """class folders of training images"""
    input_val_dir: Place = "data/food101/val"
    """class folders of images to compare with"""
    image_size: Pixels = 64
    """height and width in pixels"""
    train_batch_size: BatchSize = 256
    """images of one step, over all processes"""
    val_batch_size: BatchSize = 128
    """images sampled or scored at a time, by each process"""
    workers: Annotated[Number, Field(ge=0, le=1024)] = 0
    """processes that read ahead"""
    inception_weights: Place | None = None
    """a file of pytorch-fid's; found or downloaded if not given"""
    keep_on_device: bool = False
    """the whole training set as uint8 in the device's memory"""


@dataclass(config=STRICT)
class Train:
    steps: Positive = 100_000
    """of the whole training"""
    max_minutes: Above | None = None
    """stops after so many, with a checkpoint"""
    checkpoint_path: Place | None = None
    """what to resume or sample from: a checkpoint, a run, an exported folder, latest or best"""
    initial_weights: Place | dict[Word, Place | None] | None = None
    """a folder to start anew from, or one by network"""
    log_step: Positive = 100
    """steps between two rows"""
    checkpoint_step: Positive = 2_000
    """steps between two checkpoints"""
    keep_checkpoints: Annotated[Number, Field(ge=2, le=1_000_000)] = 3
    """the newest ones, beside the best"""
    val_step: Positive = 10_000
    """steps between two validations"""
    val_count: ImageCount = 2_020
    """images sampled and scored at validation; 0 samples the grid alone"""
    val_metrics: Metrics = Field(default_factory=lambda: ["fid"])
    """names of metrics; the first chooses the best checkpoint"""
    grid_count: Annotated[Few, Field(ge=1)] = 64
    """images of the grid"""
    grad_accumulation: BatchSize = 1
    """pieces that a batch is computed in"""
    grad_clip: Above | None = None
    """largest gradient norm"""
    max_skipped_steps: Positive = 20
    """steps in a row that may be skipped because a loss or gradient is not finite"""
    rollbacks: Few = 0
    """times that the training then goes back to its last checkpoint, with half the learning rate, before it stops"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: the fastest that the device trains well in"""
    compile: bool = False
    """torch.compile"""
    channels_last: bool | Literal["auto"] = "auto"
    """how feature maps are stored; auto: so on GPUs and CPUs"""


@dataclass(config=STRICT)
class Inference:
    count: Annotated[ImageCount, Field(ge=1)] = 2_020
    """images to sample"""
    classes: Classes | None = None
    """names; all if not given"""
    seed: Seed = 0
    """of the noise"""
    seeds: Annotated[Few, Field(ge=1)] = 1
    """repetitions, with the seeds from `seed` on; the first one's images are kept"""
    images: Place | None = None
    """a folder of class folders that is scored instead of sampled images"""
    ema_length: Length | None = None
    """of ema.name=power_function; 0 takes the weights unaveraged"""
    output_dir: Place | None = None
    """the run's folder if not given"""
    overwrite: bool = False
    """replace images of an earlier inference"""
    metrics: Metrics = Field(default_factory=lambda: ["fid"])
    """names of metrics, SPACE/METRIC in another feature space"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """of the Inception network: bf16 is quicker for choosing settings, fp32 is for published numbers"""
    baseline_draws: Few = 2
    """subsets of real training images that are scored as well, the real-data baseline"""
    sweep: dict[Word, Annotated[list[Any], Field(min_length=1)]] | list[dict[Word, Any]] = Field(default_factory=dict)
    """values by dotted key, or points"""
    visualisations: list[Literal["trajectory", "interpolation"]] = Field(default_factory=list)
    """trajectory, interpolation"""


def _default_trackers() -> dict[str, Part | None]:
    return {"wandb": {"name": "wandb"}}


@dataclass(config=STRICT)
class Config:
    """A whole experiment: run-level keys, then the parts that `builders` connects."""

    exp: Exp
    data: Data
    train: Train
    inference: Inference
    dataset: Part
    """how images are read"""
    augment: Part
    """what is done to training images"""
    codec: Part
    """pixels to the model's input and back"""
    optimizers: dict[str, Part]
    """one by network"""
    schedule: Part
    """of the learning rate"""
    ema: Part
    """the averaged weights"""
    guidance: Part
    """of a sampler"""
    sampler: Part
    """noise to images"""
    spaces: dict[Word, Part | None] = Field(default_factory=dict)
    """feature spaces of metrics, by name"""
    trackers: dict[Word, Part | None] = Field(default_factory=_default_trackers)
    """where rows, grids and scores go beside metrics.jsonl"""
    objective: Part = Field(default_factory=dict)
    """model and losses; inference takes the checkpoint's"""


@dataclass(config=STRICT)
class OnlyPath:
    config_path: Place
    """the configuration file, or the name of a bundled one"""


@dataclass(config=STRICT)
class ServeExp(OnlyPath):
    exp_dir: Place = "runs"
    """the folder of the runs that are shown"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, mps"""


@dataclass(config=STRICT)
class Prepare:
    """What prepare_data.py reads."""

    exp: OnlyPath
    source: Place
    """folder, zip, folder of zips, parquet files, hub:NAME of a data set there, or food101"""
    target: Place
    """folder to write"""
    image_size: Pixels = 64
    """pixels a side of the squares"""
    smallest: Pixels = 32
    """photos with a shorter side are dropped"""
    test_per_class: ImageCount = 20
    """photos held back for test/ where the source has none"""
    val_per_class: ImageCount = 20
    """training photos set apart for choosing settings"""
    quality: Annotated[Number, Field(ge=1, le=100)] = 95
    """of JPEGs that are made"""
    seed: Seed = 0
    """of the choice of test and held-out photos"""
    classes: Classes | None = None
    """the only ones to take; all if not given"""


@dataclass(config=STRICT)
class Check:
    """What foodgen check reads."""

    exp: OnlyPath
    data: Place
    """class folders of images, or a folder with train/, val/ and test/ of them"""
    image_size: Pixels | None = None
    """pixels a side that all images must have, as a training needs them"""


@dataclass(config=STRICT)
class Export:
    shard_megabytes: Above = 15.0
    """largest size of a file"""
    output_dir: Place | None = None
    """<run>/export, or <run>/export-LENGTH, if not given"""
    format: Literal["safetensors", "onnx", "diffusers"] = "safetensors"
    """onnx writes <run>/onnx, and diffusers, for a U-Net of DDPM, <run>/diffusers, compared with the model first"""
    target: Word | None = None
    """hub:OWNER/NAME uploads the export to the Hugging Face hub"""
    partners: bool = False
    """also the networks it was trained against, for train.initial_weights elsewhere"""
    ema_length: Annotated[Length, Field(gt=0)] | None = None
    """of another average than the one sampled with: see ema.name=power_function"""


@dataclass(config=STRICT)
class ExportConfig(Config):
    """What export.py reads: an experiment, and how to write its weights."""

    export: Export = Field(default_factory=Export)


@dataclass(config=STRICT)
class Serve:
    """What serve.py reads."""

    exp: ServeExp
    models: Annotated[list[Place], Field(min_length=1), AfterValidator(are_different)]
    """runs, checkpoints or exported folders to choose from"""
    host: Host = "127.0.0.1"
    """address to listen at; 0.0.0.0 lets the whole network in"""
    port: Annotated[Number, Field(ge=0, le=65535)] = 7860
    """0 takes a free one"""
    most_images: Annotated[Number, Field(ge=1, le=64)] = 16
    """of one request"""
    most_waiting: Annotated[Few, Field(ge=1)] = 20
    """requests in the queue; more are turned away"""


@dataclass(config=STRICT)
class Report:
    """What report.py reads."""

    exp: OnlyPath
    target: Place
    """the report's folder: README.md, data/, figures/"""
    gather: dict[Place, Part] = Field(default_factory=dict)
    """what is made of runs, by its file's name in data/"""
    figures: dict[Place, Part] = Field(default_factory=dict)
    """by their files' names in figures/"""
    tables: dict[Word, Part] = Field(default_factory=dict)
    """by their marks in README.md"""
    refresh: list[str] | bool = False
    """data files to gather anew; true for all"""

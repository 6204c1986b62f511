"""The run-level keys of a configuration, with their types, bounds and defaults."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _not_a_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


Count = Annotated[int, BeforeValidator(_not_a_boolean), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(_not_a_boolean), Field(ge=1)]
Above = Annotated[float, BeforeValidator(_not_a_boolean), Field(gt=0)]
Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
Part = dict[str, Any]


@dataclass(config=STRICT)
class Exp:
    config_path: str
    """the configuration file, or the name of a bundled one, such as edm or small/edm"""
    exp_dir: str = "runs"
    """the folder that runs lie in"""
    run: Text | None = None
    """the run's name; the configuration file's if not given"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    seed: Count = 0
    """of weights, order of images and noise"""
    use_wandb: bool = True
    """false leaves the tracker wandb out"""
    wandb_project: str = "foodgen"
    """W&B's project"""
    dry_run: bool = False
    """print what a training would be and cost, take a few steps, and leave nothing behind"""


@dataclass(config=STRICT)
class Data:
    input_train_dir: str = "data/food101/train"
    """class folders of training images"""
    input_val_dir: str = "data/food101/val"
    """class folders of images to compare with"""
    image_size: Positive = 64
    """height and width in pixels"""
    train_batch_size: Positive = 256
    """images of one step, over all processes"""
    val_batch_size: Positive = 128
    """images sampled or scored at a time, by each process"""
    workers: Count = 0
    """processes that read ahead"""
    inception_weights: str | None = None
    """a file of pytorch-fid's; found or downloaded if not given"""
    keep_on_device: bool = False
    """the whole training set as uint8 in the device's memory"""


@dataclass(config=STRICT)
class Train:
    steps: Positive = 100_000
    """of the whole training"""
    max_minutes: Above | None = None
    """stops after so many, with a checkpoint"""
    checkpoint_path: str | None = None
    """what to resume or sample from: a checkpoint, a run, an exported folder, latest or best"""
    initial_weights: str | dict[str, str | None] | None = None
    """a folder to start anew from, or one by network"""
    log_step: Positive = 100
    """steps between two rows"""
    checkpoint_step: Positive = 2_000
    """steps between two checkpoints"""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    """the newest ones, beside the best"""
    val_step: Positive = 10_000
    """steps between two validations"""
    val_count: Count = 2_020
    """images sampled and scored at validation; 0 samples the grid alone"""
    val_metrics: list[str] = Field(default_factory=lambda: ["fid"])
    """names of metrics; the first chooses the best checkpoint"""
    grid_count: Positive = 64
    """images of the grid"""
    grad_accumulation: Positive = 1
    """pieces that a batch is computed in"""
    grad_clip: Above | None = None
    """largest gradient norm"""
    max_skipped_steps: Positive = 20
    """steps in a row that may be skipped because a loss or gradient is not finite"""
    rollbacks: Count = 0
    """times that the training then goes back to its last checkpoint, with half the learning rate, before it stops"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: the fastest that the device trains well in"""
    compile: bool = False
    """torch.compile"""
    channels_last: bool | Literal["auto"] = "auto"
    """how feature maps are stored; auto: so on GPUs and CPUs"""


@dataclass(config=STRICT)
class Inference:
    count: Positive = 2_020
    """images to sample"""
    classes: list[Text] | None = None
    """names; all if not given"""
    seed: Count = 0
    """of the noise"""
    seeds: Positive = 1
    """repetitions, with the seeds from `seed` on; the first one's images are kept"""
    images: str | None = None
    """a folder of class folders that is scored instead of sampled images"""
    ema_length: Annotated[float, Field(ge=0)] | None = None
    """of ema.name=power_function; 0 takes the weights unaveraged"""
    output_dir: str | None = None
    """the run's folder if not given"""
    overwrite: bool = False
    """replace images of an earlier inference"""
    metrics: list[str] = Field(default_factory=lambda: ["fid"])
    """names of metrics, SPACE/METRIC in another feature space"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """of the Inception network: bf16 is quicker for choosing settings, fp32 is for published numbers"""
    baseline_draws: Count = 2
    """subsets of real training images that are scored as well, the real-data baseline"""
    sweep: dict[str, list[Any]] | list[dict[str, Any]] = Field(default_factory=dict)
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
    spaces: dict[str, Part | None] = Field(default_factory=dict)
    """feature spaces of metrics, by name"""
    trackers: dict[str, Part | None] = Field(default_factory=_default_trackers)
    """where rows, grids and scores go beside metrics.jsonl"""
    objective: Part = Field(default_factory=dict)
    """model and losses; inference takes the checkpoint's"""


@dataclass(config=STRICT)
class OnlyPath:
    config_path: str
    """the configuration file, or the name of a bundled one"""


@dataclass(config=STRICT)
class ServeExp(OnlyPath):
    exp_dir: str = "runs"
    """the folder of the runs that are shown"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""


@dataclass(config=STRICT)
class Prepare:
    """What prepare_data.py reads."""

    exp: OnlyPath
    source: str
    """folder, zip, folder of zips, parquet files, hub:NAME of a data set there, or food101"""
    target: str
    """folder to write"""
    image_size: Positive = 64
    """pixels a side of the squares"""
    smallest: Positive = 32
    """photos with a shorter side are dropped"""
    test_per_class: Count = 20
    """photos held back for test/ where the source has none"""
    val_per_class: Count = 20
    """training photos set apart for choosing settings"""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """of JPEGs that are made"""
    seed: Count = 0
    """of the choice of test and held-out photos"""
    classes: Annotated[list[Text], Field(min_length=1)] | None = None
    """the only ones to take; all if not given"""


@dataclass(config=STRICT)
class Check:
    """What foodgen check reads."""

    exp: OnlyPath
    data: str
    """class folders of images, or a folder with train/, val/ and test/ of them"""
    image_size: Positive | None = None
    """pixels a side that all images must have, as a training needs them"""


@dataclass(config=STRICT)
class Export:
    shard_megabytes: Above = 15.0
    """largest size of a file"""
    output_dir: str | None = None
    """<run>/export, or <run>/export-LENGTH, if not given"""
    format: Literal["safetensors", "onnx", "diffusers"] = "safetensors"
    """onnx writes <run>/onnx: model.onnx, and decoder.onnx where there is one; diffusers, for a U-Net of DDPM,
    <run>/diffusers: unet/ and scheduler/; both are compared with the model first"""
    target: str | None = None
    """hub:OWNER/NAME uploads the export to the Hugging Face hub"""
    partners: bool = False
    """also the networks it was trained against, for train.initial_weights elsewhere"""
    ema_length: Above | None = None
    """of another average than the one sampled with: see ema.name=power_function"""


@dataclass(config=STRICT)
class ExportConfig(Config):
    """What export.py reads: an experiment, and how to write its weights."""

    export: Export = Field(default_factory=Export)


@dataclass(config=STRICT)
class Serve:
    """What serve.py reads."""

    exp: ServeExp
    models: Annotated[list[str], Field(min_length=1)]
    """runs, checkpoints or exported folders to choose from"""
    host: str = "127.0.0.1"
    """address to listen at; 0.0.0.0 lets the whole network in"""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """0 takes a free one"""
    most_images: Annotated[int, Field(ge=1, le=64)] = 16
    """of one request"""
    most_waiting: Positive = 20
    """requests in the queue; more are turned away"""


@dataclass(config=STRICT)
class Report:
    """What report.py reads."""

    exp: OnlyPath
    target: str
    """the report's folder: README.md, data/, figures/"""
    gather: dict[str, Part] = Field(default_factory=dict)
    """what is made of runs, by its file's name in data/"""
    figures: dict[str, Part] = Field(default_factory=dict)
    """by their files' names in figures/"""
    tables: dict[str, Part] = Field(default_factory=dict)
    """by their marks in README.md"""
    refresh: list[str] | bool = False
    """data files to gather anew; true for all"""

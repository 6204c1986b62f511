"""A U-Net of DDPM as a folder of diffusers: the same numbers, or none at all."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.builders.pipeline import Pipeline
from foodgen.core.errors import CheckpointError, ConfigError
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.layers.attention import SelfAttention
from foodgen.layers.resample import Downsample, Upsample
from foodgen.layers.residual import ResidualBlock
from foodgen.models.ddpm import Level, UNet

HINT = "pip install diffusers==0.42.1"
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
TOLERANCE = 1e-4  # largest difference between the two networks' outputs
Weights = Iterator[tuple[str, Tensor]]


def export_diffusers(pipeline: Pipeline, folder: Path) -> list[Path]:
    """Write <folder>/unet and <folder>/scheduler, and model_index.json where the model has no classes; the files.

    The null label of a model with classes is the class after the last.
    Raises ConfigError for a model that diffusers has no equal of, UserError if the package is missing, the folder
    exists, or the network written gives other numbers.
    """
    package = _package()
    if folder.exists():
        raise CheckpointError(f"{folder}: exists already; choose another export.output_dir")
    model = _exact(pipeline)
    unet = package.UNet2DModel(**unet_config(model.network, model.noise_shape[1]))
    unet.load_state_dict(dict(unet_weights(model.network)))
    scheduler = package.DDIMScheduler(**scheduler_config(model.process))
    temporary = folder.with_name(f".writing-{folder.name}")  # a folder that is refused leaves nothing behind
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if model.network.label.classes:
            unet.save_pretrained(temporary / "unet")
            scheduler.save_pretrained(temporary / "scheduler")
            (temporary / "classes.json").write_text(json.dumps(list(pipeline.classes), indent=1))
        else:
            package.DDIMPipeline(unet, scheduler).save_pretrained(temporary)
        _compare(package.UNet2DModel.from_pretrained(temporary / "unet"), model)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _exact(pipeline: Pipeline) -> Any:
    """The pipeline's denoiser, on the CPU. Raises ConfigError if diffusers has no equal of it."""
    model: Any = pipeline.model
    reason = None
    if pipeline.parts.codec.decoder is not None:
        reason = "what a codec decodes"
    elif not isinstance(model, PreconditionedDenoiser) or not isinstance(model.network, UNet):
        reason = "any network but objective.model.network.name=ddpm"
    elif not isinstance(model.process, DDPM) or model.process.num_timesteps != 1000:
        reason = "any process but ddpm with num_timesteps=1000"
    elif model.network.patch > 1:
        reason = f"patches (objective.model.network.patch={model.network.patch})"
    elif any(layer.heads > 1 for layer in model.network.modules() if isinstance(layer, SelfAttention)):
        reason = "several heads of one number at all widths (objective.model.network.heads)"
    elif len({layer.num_groups for layer in model.network.modules() if isinstance(layer, nn.GroupNorm)}) > 1:
        reason = "group norm whose groups differ; a width that is a multiple of 128 has 32 throughout"
    if reason:
        raise ConfigError(f"export.format: diffusers has no exact equal of {reason}")
    return model.to("cpu").eval()


def unet_config(network: UNet, image_size: int) -> dict[str, Any]:
    """What diffusers' UNet2DModel is built from."""
    levels = _levels(network.down)
    adaptive = levels[0][0].block.adaptive
    has_attention = [isinstance(level[0].attention, SelfAttention) for level in levels]
    return {
        "sample_size": image_size,
        "in_channels": network.first.in_channels,
        "out_channels": network.last.out_channels,
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "down_block_types": ["AttnDownBlock2D" if here else "DownBlock2D" for here in has_attention],
        "up_block_types": ["AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(has_attention)],
        "block_out_channels": [level[0].block.second.out_channels for level in levels],
        "layers_per_block": len([layer for layer in levels[0] if isinstance(layer, Level)]),
        "dropout": levels[0][0].block.dropout.p,
        "attention_head_dim": None,
        "norm_num_groups": network.norm.num_groups,
        "attn_norm_num_groups": network.norm.num_groups,
        "norm_eps": network.norm.eps,
        "resnet_time_scale_shift": "scale_shift" if adaptive else "default",
        "num_class_embeds": network.label.classes + 1 if network.label.classes else None,
    }


def scheduler_config(process: DDPM) -> dict[str, Any]:
    """What diffusers' schedulers are built from; DDIM's steps are then those of the sampler euler."""
    return {
        "num_train_timesteps": process.num_timesteps,
        "beta_schedule": SCHEDULES[process.schedule],
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": PREDICTIONS[process.prediction],
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }


def unet_weights(network: UNet) -> Weights:
    """The network's weights under diffusers' names."""
    yield from _layer("conv_in", network.first)
    yield from _layer("conv_norm_out", network.norm)
    yield from _layer("conv_out", network.last)
    yield from _embeddings(network)
    before: Any = network.middle[0]
    after: Any = network.middle[1]
    yield from _residual("mid_block.resnets.0", before.block)
    yield from _attention("mid_block.attentions.0", before.attention)
    yield from _residual("mid_block.resnets.1", after.block)
    for side, layers in (("down", network.down), ("up", network.up)):
        for index, level in enumerate(_levels(layers)):
            for number, layer in enumerate(level):
                yield from _level(side, index, number, layer)


def _level(side: str, index: int, number: int, layer: Any) -> Weights:
    block = f"{side}_blocks.{index}"
    if isinstance(layer, Level):
        yield from _residual(f"{block}.resnets.{number}", layer.block)
        yield from _attention(f"{block}.attentions.{number}", layer.attention)
    else:
        yield from _layer(f"{block}.{side}samplers.0.conv", layer.convolution)


def _levels(layers: nn.ModuleList) -> list[list[Any]]:
    """The layers of each size, the one that changes the size last."""
    levels: list[list[Any]] = [[]]
    for layer in layers:
        levels[-1].append(layer)
        if isinstance(layer, Downsample | Upsample):
            levels.append([])
    return levels


def _embeddings(network: UNet) -> Weights:
    """Of time and class. Diffusers counts times from 0, we from 1: the first layer turns the sinusoids by one."""
    first: Any = network.time.layers[0]
    last: Any = network.time.layers[2]
    half = first.in_features // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float64))
    cosines, sines = first.weight.double().split(half, dim=1)
    turned = [
        cosines * frequencies.cos() + sines * frequencies.sin(),
        sines * frequencies.cos() - cosines * frequencies.sin(),
    ]
    yield "time_embedding.linear_1.weight", torch.cat(turned, dim=1).float()
    yield "time_embedding.linear_1.bias", first.bias
    yield "time_embedding.linear_2.weight", last.weight
    table = network.label.table.weight
    if network.label.classes:
        yield "class_embedding.weight", table
    yield "time_embedding.linear_2.bias", last.bias if network.label.classes else last.bias + table[0]


def _layer(name: str, layer: Any) -> Weights:
    yield f"{name}.weight", layer.weight
    yield f"{name}.bias", layer.bias


def _residual(name: str, block: ResidualBlock) -> Weights:
    names = {"norm1": block.norm_in, "conv1": block.first, "time_emb_proj": block.shift}
    for part, layer in {**names, "norm2": block.norm_out, "conv2": block.second}.items():
        yield from _layer(f"{name}.{part}", layer)
    if not isinstance(block.shortcut, nn.Identity):
        yield from _layer(f"{name}.conv_shortcut", block.shortcut)


def _attention(name: str, layer: nn.Module) -> Weights:
    if not isinstance(layer, SelfAttention):
        return
    yield from _layer(f"{name}.group_norm", layer.norm)
    mixed: Any = layer.to_query_key_value
    weights, biases = mixed.weight.flatten(1).chunk(3), mixed.bias.chunk(3)
    for part, weight, bias in zip(("to_q", "to_k", "to_v"), weights, biases, strict=True):
        yield f"{name}.{part}.weight", weight
        yield f"{name}.{part}.bias", bias
    out: Any = layer.out
    yield f"{name}.to_out.0.weight", out.weight.flatten(1)
    yield f"{name}.to_out.0.bias", out.bias


@torch.no_grad()
def _compare(unet: Any, model: PreconditionedDenoiser) -> None:
    """Raise CheckpointError if the network written differs from ours at some noise, time or class."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *model.noise_shape, generator=generator)
    labels, times = torch.arange(3) % (model.null_label + 1), torch.tensor([1, 500, 1000])
    ours: Any = model.network(x, times.float(), labels)
    theirs = unet.eval()(x, times - 1, labels if model.null_label else None).sample
    difference = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
    if not difference <= TOLERANCE:
        raise CheckpointError(f"export.format: diffusers' network differs from ours by {difference:.1e}")


def _package() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise ConfigError(f"export.format: diffusers wants the package {error.name}: {HINT}") from None
    return diffusers

"""A model as a folder that others can load, with a card, on the Hugging Face hub."""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import OmegaConf

from foodgen.core.config import read_file, read_saved, to_tree
from foodgen.core.errors import CheckpointError, ConfigError, UserError
from foodgen.core.locations import HUB, KEPT, locate
from foodgen.core.settings import ExportConfig
from foodgen.data.names import shorter
from foodgen.training.checkpoint import CONFIG, read_meta

log = logging.getLogger("foodgen")
CARD, INFERENCE, GRID, SCORES = "README.md", "inference.yaml", "grid.png", "metrics.json"
SAMPLED = ("codec", "sampler", "guidance")
HEAD = {"library_name": "foodgen", "license": "mit", "datasets": ["food101"], "tags": ["image-generation"]}


def check_target(target: str) -> str:
    """The name on the hub of export.target. Raises ConfigError if it is none, before anything is exported."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = target.removeprefix(HUB)
    try:
        validate_repo_id(name)
        valid = target.startswith(HUB) and re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None
    except HFValidationError:
        valid = False
    if not valid:
        raise ConfigError(f"export.target: {shorter(target)} is not {HUB}OWNER/NAME")
    return name


def check_output(folder: Path) -> None:
    """Raise UserError if `folder` cannot be made, before anything is exported."""
    if folder.name in ("", ".."):
        raise ConfigError(f"export.output_dir: {folder} is no name of a new folder")
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder}: exists already; choose another export.output_dir")
    above = next(path for path in folder.absolute().parents if os.path.lexists(path))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"export.output_dir: {folder} cannot be made in {above}")


def share(exported: Path, name: str, config: ExportConfig, run: Path, scored: str = "") -> str:
    """Upload an exported folder as hub:`name`; its address. Raises UserError if the hub refuses.

    config   whose sampler, guidance and codec are how to sample from it
    run      where its scores and grid lie, if it was scored
    scored   the scores' name for what was exported; those of others stay behind
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        stage(exported, folder, name, config, run, scored)
        try:
            api = HfApi()
            api.create_repo(name, exist_ok=True)
            api.upload_folder(folder_path=folder, repo_id=name, commit_message="foodgen export")
        except (OSError, ValueError, HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"export.target: {HUB}{name} refuses the upload ({reason}); `hf auth login` first?"
            ) from None
        return f"{api.endpoint}/{name}"


def stage(exported: Path, folder: Path, name: str, config: ExportConfig, run: Path, scored: str = "") -> None:
    """Lay out what is uploaded: weights, both configurations, the codec's weights, a grid and a card."""
    shutil.copytree(exported, folder, ignore=_others)
    tree = to_tree(config)
    if (exported / INFERENCE).is_file():
        tree |= {key: value for key, value in read_file(exported / INFERENCE).items() if key in SAMPLED}
    codec = dict(tree["codec"])
    path = Path(str(codec.get("path") or ""))
    inside = not path.is_absolute() and ".." not in path.parts and (folder / path).is_dir()
    if codec.get("path") and not inside:
        weights = locate(str(codec["path"]))
        read_meta(weights)  # a model, not some folder that a configuration names
        shutil.copytree(weights, folder / "codec", ignore=_others)
        codec["path"] = "codec"
    sampling = {"codec": codec, "sampler": tree["sampler"], "guidance": tree["guidance"]}
    (folder / INFERENCE).write_text(OmegaConf.to_yaml(OmegaConf.create(sampling)))
    for file in (GRID, SCORES) if _are_of(run, scored, config.export.ema_length) else ():
        if (run / file).is_file() and not (folder / file).exists():
            shutil.copy(run / file, folder / file)
    given = (folder / CARD).read_text() if (folder / CARD).is_file() else None
    (folder / CARD).write_text(card(folder, name, given))


def _are_of(run: Path, scored: str, ema_length: float | None) -> bool:
    """Whether scores and grid of a run's folder are of the weights that are shared, with a word if they are not."""
    try:
        found = json.loads((run / SCORES).read_text())
    except (OSError, ValueError):
        return False
    same = isinstance(found, dict) and (found.get("weights"), found.get("ema_length")) == (scored, ema_length)
    if not same:
        log.warning("%s is of other weights, or of another average: the card goes without scores", run / SCORES)
    return same


def _others(folder: str, names: list[str]) -> set[str]:
    """What a model's folder holds beside a model, and is not uploaded. Raises CheckpointError for a link out of it."""
    here, left = Path(folder), set()
    for name in names:
        if not (here / name).is_dir() and not any(fnmatch(name, pattern) for pattern in KEPT):
            left.add(name)
        elif (here / name).is_symlink() and not Path(os.path.realpath(here / name)).is_relative_to(here.resolve()):
            raise CheckpointError(f"{here / name}: is a link to elsewhere, which is not uploaded")
    return left


def card(folder: Path, name: str, given: str | None) -> str:
    """The model card: what the hub reads of it, then the folder's own card, or one of what is known."""
    head = "---\n" + OmegaConf.to_yaml(OmegaConf.create(HEAD)) + "---\n\n"
    if given is not None:
        return given if given.startswith("---") else head + given
    meta, trained = read_meta(folder), read_saved(folder / CONFIG)
    lines = [
        f"# {name.split('/')[-1]}",
        f"Generates {trained['data']['image_size']}x{trained['data']['image_size']} images of {len(meta['classes'])} "
        f"classes. A `{trained['objective']['name']}` model trained by foodgen for {meta['step']:,} steps.",
        "```python\nimport foodgen\n\n" + f'images = foodgen.load("hub:{name}").sample(count=16)\n```',
        *_scores(folder),
        *([f"![Images of this model]({GRID})"] if (folder / GRID).is_file() else []),
        f"`{CONFIG}` holds all training parameters, `{INFERENCE}` how to sample. Photos are not included; Food-101's "
        "are for research under its terms.",
    ]
    return head + "\n\n".join(lines) + "\n"


def _scores(folder: Path) -> list[str]:
    if not (folder / SCORES).is_file():
        return ["It has not been scored."]
    found: Mapping[str, Any] = json.loads((folder / SCORES).read_text())
    scores = {key: value for key, value in found.items() if isinstance(value, float) and key != "sampling_minutes"}
    rows = [f"| {key} | {value:.4g} |" for key, value in scores.items()]
    return ["\n".join(["| score | value |", "| --- | --- |", *rows])]

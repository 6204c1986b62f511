"""A model as a folder that others can load, with a card, on the Hugging Face hub."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import OmegaConf

from foodgen.core.config import read_file, read_saved, to_tree
from foodgen.core.errors import UserError
from foodgen.core.locations import HUB, locate
from foodgen.core.settings import Config
from foodgen.training.checkpoint import CONFIG, read_meta

CARD, INFERENCE, GRID, SCORES = "README.md", "inference.yaml", "grid.png", "metrics.json"
SAMPLED = ("codec", "sampler", "guidance")
HEAD = {"library_name": "foodgen", "license": "mit", "datasets": ["food101"], "tags": ["image-generation"]}


def share(exported: Path, name: str, config: Config, run: Path) -> str:
    """Upload an exported folder as hub:`name`; its address. Raises UserError if the hub refuses.

    config  whose sampler, guidance and codec are how to sample from it
    run     where its scores and grid lie, if it was scored
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        stage(exported, folder, name, config, run)
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


def stage(exported: Path, folder: Path, name: str, config: Config, run: Path) -> None:
    """Lay out what is uploaded: weights, both configurations, the codec's weights, a grid and a card."""
    shutil.copytree(exported, folder)
    tree = to_tree(config)
    if (exported / INFERENCE).is_file():
        tree |= {key: value for key, value in read_file(exported / INFERENCE).items() if key in SAMPLED}
    codec = dict(tree["codec"])
    if codec.get("path") and not (folder / str(codec["path"])).is_dir():
        shutil.copytree(locate(str(codec["path"])), folder / "codec")
        codec["path"] = "codec"
    sampling = {"codec": codec, "sampler": tree["sampler"], "guidance": tree["guidance"]}
    (folder / INFERENCE).write_text(OmegaConf.to_yaml(OmegaConf.create(sampling)))
    for file in (GRID, SCORES):
        if (run / file).is_file() and not (folder / file).exists():
            shutil.copy(run / file, folder / file)
    given = (folder / CARD).read_text() if (folder / CARD).is_file() else None
    (folder / CARD).write_text(card(folder, name, given))


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
    rows = [f"| {key} | {value:.4g} |" for key, value in found.items() if isinstance(value, float)]
    return ["\n".join(["| score | value |", "| --- | --- |", *rows])]

"""Where a folder is that a user names: here, bundled with the package, or on the Hugging Face hub."""

from pathlib import Path

from foodgen.core.errors import CheckpointError

HUB = "hub:"  # before a name of the hub: hub:OWNER/NAME
PACKAGE = Path(__file__).parent.parent
BUNDLED = next((path for path in (PACKAGE, PACKAGE.parent) if (path / "configs").is_dir()), None)
KEPT = ["*.safetensors", "*.json", "*.yaml", "*.png", "README.md"]  # of what there is on the hub


def locate(name: str | Path) -> Path:
    """The folder of this path, else the bundled one, such as checkpoints/gan; hub:OWNER/NAME is downloaded first.

    Raises CheckpointError if that fails. A path that does not exist comes back as it is.
    """
    if str(name).startswith(HUB):
        return download(str(name).removeprefix(HUB))
    path = Path(name)
    if not path.is_absolute() and not path.exists() and BUNDLED and (BUNDLED / path).exists():
        return BUNDLED / path
    return path


def download(name: str) -> Path:
    """The files of a model on the hub, as plain files of this machine. Raises CheckpointError."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(constants.HF_HOME) / "foodgen" / name.replace("/", "--")
        return Path(snapshot_download(name, local_dir=folder, allow_patterns=KEPT))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(f"{HUB}{name}: cannot be downloaded ({str(error).strip().splitlines()[0]})") from None

"""Write a checkpoint's averaged weights alone; share them."""

from collections.abc import Sequence
from pathlib import Path

from foodgen.builders.diffusers import export_diffusers
from foodgen.builders.onnx import export_onnx
from foodgen.builders.pipeline import Pipeline
from foodgen.builders.sharing import check_output, check_target, share
from foodgen.builders.training import export
from foodgen.core import config
from foodgen.core.errors import ConfigError
from foodgen.core.settings import ExportConfig
from foodgen.training.checkpoint import is_resumable
from foodgen.training.manifest import fingerprint
from foodgen.training.run_folder import find_checkpoint, run_folder

FORMATS = {"onnx": export_onnx, "diffusers": export_diffusers}


def main(arguments: Sequence[str]) -> None:
    """Export, name the files, and upload them if asked for."""
    settings = config.load(arguments, ExportConfig)
    target, output = settings.export.target, settings.export.output_dir
    name = None if target is None else check_target(target)
    if target is not None and settings.export.format != "safetensors":
        raise ConfigError(f"export.target: what is shared is safetensors, not export.format={settings.export.format}")
    if output:
        check_output(Path(output))
    source, files = find_checkpoint(settings), list[Path]()
    folder = source
    if write := FORMATS.get(settings.export.format):
        made = Path(output or run_folder(settings) / settings.export.format)
        check_output(made)
        files = write(Pipeline(settings, folder), made)
    elif target is None or is_resumable(folder):  # else it is an export already
        files = export(settings)
        folder = files[0].parent
    for path in files:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if name is not None:
        print(share(folder, name, settings, run_folder(settings), fingerprint(source)))

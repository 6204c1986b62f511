"""Open a page to sample from models and to watch runs."""

import os
from collections.abc import Sequence
from pathlib import Path

from foodgen.builders.pipeline import load
from foodgen.core import config
from foodgen.core.errors import ConfigError
from foodgen.core.settings import Serve

HINT = "serve wants the package gradio: pip install -r requirements-serve.txt"


def main(arguments: Sequence[str]) -> int:
    """Serve until interrupted; the exit status. Raises UserError before anything listens."""
    settings = config.load(arguments, Serve)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    try:
        from foodgen.web import page
    except ImportError as error:
        if error.name != "gradio":
            raise
        raise ConfigError(HINT) from None
    models = {name: load(name, settings.exp.device, settings.most_images) for name in settings.models}
    blocks = page.build(models, Path(settings.exp.exp_dir), settings.most_images)
    return page.launch(blocks, settings.host, settings.port, settings.most_waiting)

"""A place to run commands in, with a valid configuration of each."""

import contextlib
import copy
import hashlib
import io
import shutil

import pytest
import yaml

import train
from foodgen.commands import cli
from foodgen.core import command_line, config
from tests.conftest import TINY


class Place:
    """An empty working folder, a trained run beside it, and a valid configuration of each command."""

    def __init__(self, root, dishes):
        self.root, self.work = root, root / "work"
        self.work.mkdir()
        self.file = root / "given.yaml"
        tree = config.read_file(TINY)
        tree["dataset"] = {"name": "folder"}
        tree["data"] |= {"input_train_dir": str(dishes / "train"), "input_val_dir": str(dishes / "test")}
        tree["exp"] |= {"exp_dir": "runs", "seed": 1, "wandb_project": "kitchen"}
        tree["train"] |= {"checkpoint_path": None, "initial_weights": None, "max_minutes": 5.0}
        self.trained = root / "trained" / "tiny"
        run = [f"exp.exp_dir={self.trained.parent}", "train.steps=3", "exp.run=tiny"]
        self.file.write_text(yaml.safe_dump(tree))
        train.main([f"exp.config_path={self.file}", *run])
        drawn = copy.deepcopy(tree)
        drawn["train"]["checkpoint_path"] = str(self.trained)
        drawn["inference"] |= {"classes": None, "seed": 0, "seeds": 1, "output_dir": "drawn", "sweep": {}}
        written = {**drawn, "export": {"format": "safetensors", "output_dir": "out", "target": None, "partners": False}}
        (root / "file.json").write_text("{}")
        lines = {"a.json": {"name": "file", "file": str(root / "file.json")}}
        curves = {"name": "curves", "data": "a.json", "y": ["loss"], "variants": {"a": "b"}, "smooth": 2}
        self.trees = {
            "train": tree,
            "sample": drawn,
            "export": written,
            "prepare": {"source": str(dishes / "train"), "target": "squares", "image_size": 8, "seed": 0}
            | {"smallest": 4, "quality": 90, "classes": ["soup"], "exp": {}, "test_per_class": 1, "val_per_class": 0},
            "report": {"target": "report", "exp": {}, "gather": lines, "figures": {"c.png": curves}, "refresh": False},
            "check": {"data": str(dishes / "train"), "image_size": 16, "exp": {}},
            "serve": {"models": [str(self.trained)], "exp": {"exp_dir": "runs", "device": "cpu"}, "host": "127.0.0.1"}
            | {"port": 0, "most_images": 4, "most_waiting": 2},
        }

    def run(self, command, text=None, *arguments):
        """Status and lines of errors of a command in this process; any other exception than the mistakes' comes out."""
        self.file.write_text(yaml.safe_dump(self.trees[command]) if text is None else text)
        line, errors = [command, f"exp.config_path={self.file}", *arguments], io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            with pytest.raises(SystemExit) as ended:
                command_line.run(lambda _: cli.main(line))
        return ended.value.code, [one for one in errors.getvalue().splitlines() if one.startswith("error: ")]

    def names(self, line, way):
        """Whether a line tells where to look: a key, the file, or what should have been there."""
        return any(name in line for name in (*way, self.file.name, "there is no such checkpoint"))

    def files(self):
        """All that lies here, but for the configuration that is given."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
            for path in self.root.rglob("*")
            if path != self.file
        }

    def clear(self):
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

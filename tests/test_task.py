"""The snippets of the task that foodgen answers, as they are printed there."""

import pytest

from foodgen.core.registry import ClassRegistry
from tests.runs import last


def test_the_registry_as_the_task_prints_it():
    some_registry = ClassRegistry()

    @some_registry.add_to_registry(name="some_name")
    class SomeClass:
        def __init__(self, a=1, b=1):
            self.a, self.b = a, b

    some_object = some_registry["some_name"](b=2)
    assert isinstance(some_object, SomeClass)
    assert (some_object.a, some_object.b) == (1, 2)
    assert some_registry == {"some_name": SomeClass}


@pytest.mark.long
def test_the_command_lines_as_the_task_prints_them(tiny, tmp_path, script):
    """python3 {file}.py exp.config_path=…, further arguments over it; inference of a checkpoint."""
    assert script("train.py", *tiny, "train.steps=3").returncode == 0
    checkpoint = last(tmp_path)
    assert checkpoint.name == "step-00000003"
    sampled = script("inference.py", *tiny, f"train.checkpoint_path={checkpoint}", "inference.metrics=[]")
    assert sampled.returncode == 0, sampled.stderr
    assert script("train.py", "train.steps=3").stderr == "error: exp.config_path=FILE is missing\n"


@pytest.mark.long
@pytest.mark.parametrize("name", ["speed", "denoising_error", "as_jpeg", "soak"])
def test_benchmarks_take_a_configuration_as_well(name, script, tmp_path):
    missing = script("-m", f"benchmarks.{name}")
    assert (missing.returncode, missing.stderr) == (2, "error: exp.config_path=FILE is missing\n")
    found = script("-m", f"benchmarks.{name}", f"exp.config_path=configs/benchmarks/{name}.yaml", "sectoins=[]")
    assert found.returncode == 2
    assert "sectoins" in found.stderr


def test_demo_takes_a_configuration(monkeypatch, tmp_path):
    import demo

    calls = []
    monkeypatch.setattr(demo.subprocess, "call", lambda command: calls.append(command[1:]) or 0)
    demo.main(["exp.config_path=configs/demo.yaml", f"exp.exp_dir={tmp_path}"])
    assert [call[0] for call in calls] == ["inference.py", "inference.py", "train.py", "inference.py"]
    assert f"inference.output_dir={tmp_path}/demo_gan" in calls[0]
    assert "exp.config_path=checkpoints/diffusion/inference.yaml" in calls[1]
    assert calls[2][1:] == [
        "exp.config_path=configs/demo.yaml",
        f"exp.exp_dir={tmp_path}",
        "train.checkpoint_path=latest",
    ]

"""No configuration or command line, however wrong, ends in a traceback, is silently taken, or leaves files."""

import copy
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from foodgen.core import config
from foodgen.core.registry import import_parts
from tests.conftest import TINY

# what no key means, neither one that is used nor one that is not
NEVER = [".nan", ".inf", "-.inf", "1e30", "-1e30", "!!python/object/apply:os.getcwd []", "{a: &a [*a]}", "*nowhere"]


ODD = ["''", "' '", "abc", "épée 🍲", "null", "true", "-1", "0", "2.5", "1" + "0" * 40, "9223372036854775808"]


ODD += ["[]", "[1]", "[a, b]", "{}", "{a: 1}", "{name: abc}", "{name: {a: 1}}", "{name: {name: heun}}", "[[[[1]]]]"]


ODD += ["'${no.such}'", "'${exp}'", "'???'", "'" + "a" * 300 + "'", '"\\0"', "!!binary aGk=", "2020-01-01", "[", "'"]


FREE = {
    "optimizers",
    "spaces",
    "trackers",
    "gather",
    "figures",
    "tables",
    "variants",
    "published",
}  # their keys are names


HERE, TWICE = "@@here@@", "@@twice@@"


def paths_in(tree, above=()):
    """The ways to all keys of a configuration."""
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths_in(value, (*above, key))


@st.composite
def mutations(draw, trees):
    """(command, way to a key, text of the file, arguments, whether it must be refused) of a valid one made wrong."""
    command = draw(st.sampled_from(sorted(trees)))
    tree = copy.deepcopy(trees[command])
    way = draw(st.sampled_from(sorted(paths_in(tree))))
    *above, key = way
    node = tree
    for name in above:
        node = node[name]
    kind = draw(st.sampled_from(["value"] * 5 + ["argument"] * 3 + ["drop", "misspell", "nest", "duplicate"]))
    value = draw(st.sampled_from(NEVER + ODD))
    if kind == "argument":
        return command, way, yaml.safe_dump(tree), [f"{'.'.join(way)}={value}"], value in NEVER
    if kind in ("drop", "misspell", "nest"):
        old = node.pop(key)
        node |= {"drop": {}, "misspell": {f"{key}z": old}, "nest": {key: {key: old}}}[kind]
        return command, way, yaml.safe_dump(tree), [], kind == "misspell" and not FREE & {*above}
    if kind == "duplicate":
        node[TWICE] = node[key]
        return command, way, yaml.safe_dump(tree).replace(f"'{TWICE}'", key), [], True
    node[key] = HERE
    nonsense = value in NEVER and way != ("exp",)  # in its place stands what the command line says of it
    return command, way, yaml.safe_dump(tree, width=10_000).replace(f"'{HERE}'", value), [], nonsense


def test_the_valid_configurations_are_accepted(place):
    for command in place.trees:
        assert place.run(command) == (0, []), command
        place.clear()


def test_whatever_is_wrong_is_refused_in_a_line_or_taken_at_its_word(place, tmp_path):
    """Two hundred mutated files and command lines: no traceback; a refusal names the key and leaves nothing."""
    set_hypothesis_home_dir(tmp_path)  # what it keeps is of no use to another run
    ended = []

    @settings(
        max_examples=200,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations(place.trees))
    def holds(mutation):
        command, way, text, arguments, nonsense = mutation
        before = place.files()
        status, errors = place.run(command, text, *arguments)
        ended.append(status)
        if status == 0:
            assert not nonsense and not errors
            place.clear()
            return
        assert status == 2, errors
        assert errors and all(len(line) > len("error: ") for line in errors)
        assert len({*errors}) == len(errors)
        assert all(place.names(line, way) for line in errors), errors
        assert place.files() == before

    holds()
    assert len(ended) >= 200
    assert ended.count(0) >= 10 and ended.count(2) >= 100  # it is neither all accepted nor all refused


HOLES = [
    ("train", "data.input_val_dir=''", "data.input_val_dir: a word is expected, and this is empty"),
    ("train", "data.input_train_dir=' '", "data.input_train_dir: a word is expected"),
    ("train", "exp.exp_dir=''", "exp.exp_dir: a word is expected"),
    ("train", "exp.run=''", "exp.run: a word is expected"),
    ("train", "exp.run=true", "exp.run: "),
    ("train", "exp.run=" + "a" * 300, "exp.run: no file or folder has so long a name"),
    ("train", "exp.device=meta", "exp.device: "),
    ("train", "exp.seed=9223372036854775808", "exp.seed: "),
    ("train", "train.max_minutes=1e30", "train.max_minutes: "),
    ("train", "train.steps=10000000000", "train.steps: "),
    ("train", "train.val_metrics=[fid,fid]", "train.val_metrics: 'fid' is given twice"),
    ("train", "data.image_size=100000", "data.image_size: "),
    ("train", "data.train_batch_size=1000000000", "data.train_batch_size: "),
    ("train", "data.workers=100000", "data.workers: "),
    ("train", "inference.metrics=[fdi]", "inference.metrics.0: no metric is named 'fdi'; did you mean 'fid'?"),
    ("train", "inference.classes=[1,2]", "inference.classes: no class is named '1'"),
    ("train", "inference.classes=[soup,soup]", "inference.classes: 'soup' is given twice"),
    ("train", "inference.classes=[]", "inference.classes: "),
    ("train", "train.initial_weights=5", "train.initial_weights: "),
    ("train", "spaces.efficientnet.name={a: 1}", "spaces.efficientnet.name: a word is expected"),
    ("train", "spaces.efficientnet.features={name: efficientnet_lit}", "spaces.efficientnet.features.name: no model"),
    ("train", "spaces.efficientnet.features={name: dcgan}", "spaces.efficientnet.features: DCGAN is not a FeatureMaps"),
    ("train", "trackers.wandb={name: wnadb}", "trackers.wandb.name: no tracker is named 'wnadb'"),
    ("train", "trackers.wandb.key=1", "trackers.wandb.key: wandb has no such argument"),
    ("train", "guidance.scale=1e30", "guidance.scale: numbers go up to"),
    ("train", "guidance.scale=5000", "guidance: scale: 5000 is not between"),
    ("train", "guidance.interval=[3,1]", "guidance: interval: [3.0, 1.0] is not"),
    ("train", "guidance.interval=[]", "guidance.interval: "),
    ("train", "sampler.steps=100000", "sampler: steps: 100000 is at least 1 and at most 10000"),
    ("train", "sampler.clip_denoised=-1", "sampler: clip_denoised: -1.0 is not above 0"),
    ("train", "sampler={name: edm_stochastic, s_min: 5, s_max: 1}", "sampler: s_min, s_max"),
    ("train", "ema.decay=1", "ema: decay: 1.0 is not in [0, 1)"),
    ("train", "objective.model.process.sigma_min=90", "objective.model.process: sigma_min, sigma_max"),
    ("train", "objective.model.network.dropout=1.5", "objective.model.network"),
    ("train", "objective.model.network.width=-8", "objective.model.network"),
    ("train", "objective.model.network.multipliers=[true]", "objective.model.network.multipliers: a number is"),
    ("train", "optimizers.model.lr=1e30", "optimizers.model.lr: numbers go up to"),
    ("train", "optimizers.model.lr=-1", "optimizers.model: Invalid learning rate"),
    ("sample", "inference.output_dir=''", "inference.output_dir: a word is expected"),
    ("sample", "inference.classes=[1,2]", "inference.classes: no class is named '1'"),
    ("sample", "inference.ema_length=0.5", "inference.ema_length: "),
    ("sample", "inference.sweep={sampler.steps: []}", "inference.sweep.sampler.steps: "),
    ("sample", "train.val_metrics=[fdi]", "train.val_metrics.0: no metric is named 'fdi'"),  # which it does not use
    ("export", "export.target='hub:'", "export.target: hub: is not hub:OWNER/NAME"),
    ("export", "export.output_dir=''", "export.output_dir: a word is expected"),
    ("prepare", "target=''", "target: a word is expected"),
    ("prepare", "source=''", "source: a word is expected"),
    ("prepare", "classes=[soup,soup]", "classes: 'soup' is given twice"),
    ("prepare", "quality=true", "quality: a number is expected"),
    ("check", "data=''", "data: a word is expected"),
    ("serve", "port=65536", "port: "),
    ("serve", "host='a host'", "host: "),
    ("serve", "models=[]", "models: "),
    ("serve", "most_waiting=1000000", "most_waiting: "),
    ("report", "figures={a: {name: curvs}}", "figures.a.name: no figure is named 'curvs'; did you mean 'curves'?"),
    ("report", "gather={a: {name: file, fil: x}}", "gather.a.fil: file has no such argument"),
    ("report", "tables={a: {name: runs, data: x, last: [fid]}}", "target: report/README.md is missing"),
]


@pytest.mark.parametrize(("command", "override", "message"), HOLES, ids=lambda value: value[:48])
def test_nonsense_is_refused_used_or_not(command, override, message, place):
    """One line that names the key, status 2, and nothing on the disk."""
    before = place.files()
    status, errors = place.run(command, None, override)
    assert (status, len(errors)) == (2, 1), errors
    assert errors[0].startswith(f"error: {message}")
    assert place.files() == before


def test_all_mistakes_are_told_in_a_line_each(place):
    wrong = ["sampler.setps=3", "guidance={name: nonne}", "train.stepz=1", "data.image_size=0"]
    status, errors = place.run("train", None, *wrong, "spaces.pixels={}", "objective.model.network.widht=8")
    assert status == 2
    assert sorted(line.split(":")[1].strip() for line in errors) == [
        "data.image_size",
        "guidance.name",
        "objective.model.network.widht",
        "sampler.setps",
        "train.stepz",
    ]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("{guidance.scale: [1], guidance.scael: [1]}", "inference.sweep: guidance.scael: "),
        ("{sampler.steps: [2, 2.5]}", "inference.sweep: sampler.steps: "),
        ("[{sampler.steps: 2}, {smapler.steps: 2}]", "inference.sweep: smapler: unknown key"),
        ("{'': [1]}", "inference.sweep"),
        ("{inference: [{metrics: [kid]}]}", "inference.sweep: inference cannot be swept"),
        ("{sampler.steps: [2], sampler: [{name: heun}]}", "inference.sweep: "),
    ],
)
def test_a_sweeps_mistakes_are_told_before_a_checkpoint_is_read(sweep, message, place, dishes, monkeypatch):
    monkeypatch.setattr("foodgen.builders.inference.make_inference", lambda *_: pytest.fail("began"))
    before = place.files()
    swept = ["inference.metrics=[fid]", f"data.input_val_dir={dishes / 'train'}", f"inference.sweep={sweep}"]
    status, errors = place.run("sample", None, *swept)
    assert (status, len(errors)) == (2, 1), errors
    assert errors[0].startswith(f"error: {message}")
    assert place.files() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.model.network.width=16"], "checkpoints"),
        (["objective.model.network.depth=2"], "objective.model.network.depth: ddpm has no such argument"),
        (["optimizers.model={name: muon}"], "checkpoints"),
        (["data.image_size=32"], "data.input_train_dir"),
        (["train.stepz=9"], "train.stepz: unknown key"),
    ],
)
def test_a_refused_resumption_leaves_the_run_as_it_is(changes, message, place):
    before = place.files()
    own = [f"exp.exp_dir={place.trained.parent}", "exp.run=tiny", "train.checkpoint_path=latest", "train.steps=9"]
    status, errors = place.run("train", None, *own, *changes)
    assert (status, len(errors)) == (2, 1), errors
    assert message in errors[0]
    after = place.files()
    assert {name for name in after if after[name] != before.get(name)} <= {"trained/tiny/run.lock"}


def test_a_package_that_is_not_installed_costs_its_own_parts_alone(monkeypatch):
    """The page wants gradio: who does not serve trains without it."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "foodgen.web.page", raising=False)
    import_parts.__wrapped__()
    monkeypatch.setitem(sys.modules, "foodgen.core.nowhere", None)
    monkeypatch.setattr(
        "pkgutil.walk_packages", lambda *_, **__: [type("Module", (), {"name": "foodgen.core.nowhere"})]
    )
    with pytest.raises(ModuleNotFoundError):  # a module of foodgen's own
        import_parts.__wrapped__()


def test_the_driver_of_these_tests_sees_tracebacks(place, monkeypatch):
    """What is no user's mistake comes through, so that the tests above would see it."""
    monkeypatch.setattr(config, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        place.run("check", Path(TINY).read_text())

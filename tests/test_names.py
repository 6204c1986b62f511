"""Code uses the field's words: none of those that it once invented in their place."""

import ast

import pytest

from tests.test_architecture import MODULES, ROOT

# retired word: what it is called now
RETIRED = {
    "Turn turns player players deceive": "Phase, phases, network, generator_loss",
    "Scene slopes": "PenaltyInputs, squared_gradient_norm",
    "disturbance disturbances Disturbance Undisturbed": "augmentation, NoAugment",
    "drawn draws Drawer drawer paint": "generated, sampling, SamplingLoop, save_grid",
    "Walk Walker walk look guess landing": "SamplerState, DiffusionSampler, state, denoise, prediction, x_next",
    "mix bridge noise_in time_at bound_grid": "q_sample, posterior, eps, sigma_to_t, vlb_timesteps",
    "practise": "training_logits",
    "variance_share Importance label_drop": "v, LossSecondMomentResampler, class_dropout",
    "Weighted Waves joined settle": "MPConv, MPFourier, mp_cat, normalize_weights",
    "noise_width style_width widest planes": "z_dim, w_dim, channel_max, noise_maps",
    "Judge judge judges Panel Evidence": "MetricSpec, MetricGroup, MetricInputs",
    "Measure Measurer exhibits": "ModelMetric, ModelEvaluator, visualisations",
    "accumulate ambient told arm arms gatherer gatherers": "grad_accumulation, injected, embedding, variant, collector",
}
WORDS = {word: now for words, now in RETIRED.items() for word in words.split()}


def identifiers(path):
    """Names that a file defines, takes or reads."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_word_names_anything(path):
    if path.name in ("synthetic.py", "aliases.py"):  # one draws dishes by angles; the other lists the words
        return
    found = sorted({name for name in identifiers(path) if name in WORDS})
    assert not found, {name: WORDS[name] for name in found}

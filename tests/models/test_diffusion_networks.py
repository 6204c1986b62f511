"""The networks of the diffusion family: published sizes, shapes, what they listen to, and what all weights learn."""

import pytest
import torch

from foodgen.core.networks import NormalizedWeights
from foodgen.core.registry import build, models
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.edm import EDM
from foodgen.models.edm2 import EDM2

SMALL = {
    "ddpm": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_at": [8], "adaptive": True},
    "adm": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_at": [8], "head_width": 8},
    "latent_unet": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_at": [8], "heads": 2, "context": 6},
    "edm2": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_at": [8], "head_width": 8},
    "dit": {"width": 24, "depth": 3, "heads": 2},
    "hybrid": {"widths": [8, 12], "blocks": 1, "width": 16, "depth": 2, "heads": 2},
}
everyone = pytest.mark.parametrize("name", SMALL)


def network(name, classes=5, **more):
    torch.manual_seed(0)
    return build("network", {"name": name, **SMALL[name], **more}, channels=3, image_size=16, classes=classes)


def awake(net):
    """With all weights moved away from their starting zeros."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return net


X, TIME, LABELS = torch.randn(2, 3, 16, 16), torch.tensor([10.0, 700.0]), torch.tensor([0, 3])


@pytest.mark.parametrize(
    ("node", "size", "channels", "classes", "published"),
    [
        ({"name": "ddpm"}, 32, 3, 0, 35.7e6),  # CIFAR-10 (Ho 2020, appendix B)
        ({"name": "ddpm", "multipliers": [1, 1, 2, 2, 4, 4]}, 256, 3, 0, 114e6),  # LSUN and CelebA-HQ (the same)
        ({"name": "adm", "outputs": 6}, 64, 3, 1000, 296e6),  # ImageNet-64 (Dhariwal 2021, table 4)
        ({"name": "dit", "outputs": 8}, 32, 4, 1000, 33e6),  # DiT-S/4 (Peebles 2022, table 1)
        ({"name": "dit", "width": 768, "heads": 12, "patch": 2, "outputs": 8}, 32, 4, 1000, 130e6),  # DiT-B/2
        ({"name": "edm2"}, 64, 3, 1000, 280e6),  # EDM2-S at ImageNet-64 (Karras 2023)
        (
            {"name": "latent_unet", "width": 192, "multipliers": [1, 2, 3, 5], "attention_at": [32, 16, 8], "heads": 1},
            *(64, 3, 1000, 400e6),  # LDM-4 on ImageNet (Rombach 2021, table 13)
        ),
        ({"name": "vae"}, 256, 3, 1000, 55.3e6),  # kl-f4 of its published checkpoint
    ],
)
def test_published_sizes(node, size, channels, classes, published):
    with torch.device("meta"):
        made = build("network", node, channels=channels, image_size=size, classes=classes)
    assert sum(weight.numel() for weight in made.parameters()) == pytest.approx(published, rel=0.02)


@everyone
def test_shapes_and_what_it_listens_to(name):
    net = awake(network(name)).eval()
    with torch.no_grad():
        first = net(X, TIME, LABELS)
        assert first.shape == X.shape
        assert (net(X, TIME, torch.tensor([0, 1])) - first)[1].abs().max() > 1e-3
        assert (net(X, TIME, torch.tensor([0, 1])) - first)[0].abs().max() < 1e-5
        assert (net(X, TIME + 50, LABELS) - first).abs().max() > 1e-3
        torch.testing.assert_close(net(X, TIME, None), net(X, TIME, torch.tensor([5, 5])))  # 5 is the null label
        unconditional = awake(network(name, classes=0)).eval()
        torch.testing.assert_close(unconditional(X, TIME, LABELS), unconditional(X, TIME, None))


@everyone
def test_every_weight_learns(name):
    net = awake(network(name)).train()
    (net(X, TIME, LABELS) * torch.randn_like(X)).sum().backward()
    idle = [key for key, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not idle


@everyone
def test_starts_at_zero_so_that_the_first_guess_is_the_processes(name):
    assert network(name)(X, TIME, LABELS).abs().max() == 0


@pytest.mark.parametrize("name", ["ddpm", "adm", "latent_unet", "dit", "hybrid"])
def test_a_learned_variance_doubles_the_channels(name):
    assert network(name, outputs=6)(X, TIME, LABELS).shape == (2, 6, 16, 16)


@pytest.mark.parametrize("name", ["dit", "hybrid"])
def test_features_are_returned_beside_the_same_image(name):
    net = network(name)
    image, features = net(X, TIME, LABELS, return_features=True)
    assert torch.equal(image, net(X, TIME, LABELS))
    assert features.shape == (2, net.feature_channels, 4, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("adm", {"multipliers": [1, 1, 1, 1, 1, 1]}, "16 pixels cannot be halved 5 times"),
        ("adm", {"width": 7}, "width: 7 is even"),
        ("adm", {"head_width": 5, "attention_at": [16]}, "heads"),
        ("latent_unet", {"heads": 3}, "heads: 3 do not divide"),
        ("dit", {"patch": 3}, "patch: 3 does not divide 16"),
        ("dit", {"heads": 5}, "heads: 5"),
        ("dit", {"width": 20, "heads": 2}, "10 channels a head"),
        ("hybrid", {"depth": 3}, "an even depth: 3"),
        ("hybrid", {"widths": []}, "widths"),
        ("edm2", {"width": 0}, "width: 0"),
        ("vae", {"multipliers": [1, 1, 1, 1, 1, 1]}, "16 pixels cannot be halved 5 times"),
        ("adm_classifier", {"classes": 1}, "classes: 1 are too few"),
    ],
)
def test_numbers_that_make_no_network(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build("network", {"name": name, **SMALL.get(name, {}), **arguments}, channels=3, image_size=16, classes=5)


def test_edm2_keeps_the_size_of_what_passes_through():
    torch.manual_seed(0)
    net = EDM2(3, 32, classes=5, width=32, multipliers=(1, 2), blocks=1, attention_at=(16,), head_width=16).train()
    sizes = []
    for block in [*net.down, *net.middle_blocks, *net.up]:
        block.register_forward_hook(lambda module, given, made: sizes.append(made.std().item()))
    net(torch.randn(4, 3, 32, 32), 500 * torch.rand(4), torch.arange(4))
    assert all(0.5 < size < 1.5 for size in sizes)


def test_edm2_normalises_its_weights_without_changing_its_outputs():
    net = awake(network("edm2"))
    model = PreconditionedDenoiser(net, EDM(), 3, 16, classes=5)
    model.eval()(X, TIME / 1000, LABELS)
    assert net.first.weight.flatten(1).square().mean(dim=1).sqrt().sub(1).abs().max() > 0.01
    before = model.eval()(X, TIME / 1000, LABELS).denoised
    for layer in net.modules():
        if isinstance(layer, NormalizedWeights):
            layer.normalize_weights()
    for layer in (net.first, net.down[0].second, net.time):
        sizes = layer.weight.flatten(1).square().mean(dim=1).sqrt()
        torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=1e-3, atol=0)
    torch.testing.assert_close(model.eval()(X, TIME / 1000, LABELS).denoised, before, rtol=1e-2, atol=1e-3)


def test_a_patch_discriminator_judges_patches():
    spec = models["patch_discriminator"](channels=3, width=8, halvings=2)
    first = spec(X)
    assert first.shape[:2] == (2, 1)
    changed = X.clone()
    changed[:, :, :2, :2] += 1  # a corner
    differs = (spec(changed) - first).abs().amax(dim=(0, 1)) > 1e-4
    assert differs[0, 0]

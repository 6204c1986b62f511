"""The U-Net: its size, its conditions, its limits."""

import pytest
import torch

from foodgen.core.randomness import seed_step
from foodgen.core.types import Batch
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.edm import EDM
from foodgen.models.ddpm import UNet
from foodgen.objectives.denoising import Denoising


@pytest.fixture
def network():
    made = UNet(3, 16, classes=5, width=8, multipliers=(1, 2), blocks=1, attention_at=(8,), dropout=0.0)
    with torch.no_grad():
        for weight in made.parameters():  # the zero convolutions would hide everything
            weight.add_(0.05 * torch.randn_like(weight))
    return made


X, TIME = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])


def test_cifar10_size_is_the_papers():
    """Ho 2020, appendix B: 35.7 million weights."""
    with torch.device("meta"):
        network = UNet(3, 32, classes=0, width=128, multipliers=(1, 2, 2, 2), blocks=2, attention_at=(16,))
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(35.7e6, rel=0.02)


def test_another_label_and_another_time_change_the_output(network):
    first = network(X, TIME, torch.tensor([0, 1]))
    assert (network(X, TIME, torch.tensor([3, 1])) - first)[0].abs().max() > 1e-3
    assert (network(X, TIME, torch.tensor([3, 1])) - first)[1].abs().max() < 1e-5
    assert (network(X, TIME + 50, torch.tensor([0, 1])) - first).abs().max() > 1e-3


def test_the_null_label_is_no_label(network):
    torch.testing.assert_close(network(X, TIME, torch.tensor([5, 5])), network(X, TIME))


def test_gradients_reach_every_label_used_and_no_other(network):
    network(X, TIME, torch.tensor([1, 4])).square().sum().backward()
    reached = network.label.table.weight.grad.abs().sum(dim=1) > 0
    assert reached.tolist() == [False, True, False, False, True, False]


def test_an_unconditional_network_ignores_labels():
    network = UNet(3, 16, classes=0, width=8, multipliers=(1,), blocks=1, attention_at=())
    torch.nn.init.normal_(network.last.weight)
    network.eval()
    torch.testing.assert_close(network(X, TIME, torch.tensor([0, 3])), network(X, TIME))


def test_dropping_all_labels_is_the_null_label(network):
    """The same noise and times: a loss with class_dropout 1 is the loss of unlabelled images."""
    model = PreconditionedDenoiser(network, EDM(), channels=3, image_size=16, classes=5)
    losses = []
    for drop, labels in ((1.0, [0, 1]), (0.0, [5, 5]), (0.0, [0, 1])):
        seed_step(3, 1)
        losses.append(Denoising(model, class_dropout=drop).loss(Batch(X, torch.tensor(labels)))["loss"].item())
    assert losses[0] == losses[1] != losses[2]


def test_class_dropout_drops_its_share(network):
    model = PreconditionedDenoiser(network, EDM(), channels=3, image_size=16, classes=5)
    labels = Denoising(model, class_dropout=0.3).drop_classes(torch.zeros(4000, dtype=torch.long))
    assert (labels == 5).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (labels == 0).sum() == 4000 - (labels == 5).sum()


def test_patches_fold_and_unfold():
    network = UNet(3, 16, classes=2, width=8, multipliers=(1,), blocks=1, attention_at=(), patch=4)
    assert network(X, TIME).shape == X.shape
    assert network.first.in_channels == 48


@pytest.mark.parametrize("arguments", [{"multipliers": (1, 1, 1, 1, 1, 1)}, {"patch": 3}, {"width": 6, "heads": 4}])
def test_sizes_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match=r"multipliers|heads"):
        UNet(3, 16, classes=2, **{"width": 8, "multipliers": (1, 2), "attention_at": (16,), **arguments})

"""The classifier of clean images: its shapes, its mistakes, and that it learns what it is shown."""

import pytest
import torch

from foodgen.core.types import Batch
from foodgen.data.folder import Folder
from foodgen.models.resnet import PreActivation, ResNet
from foodgen.objectives.classification import Classification


def test_a_block_whose_last_convolution_is_nothing_is_its_skip():
    x = torch.randn(2, 4, 8, 8)
    block = PreActivation(4, 4, 1).eval()
    torch.nn.init.zeros_(block.second.weight)
    assert torch.equal(block(x), x)
    assert PreActivation(4, 6, 2)(x).shape == (2, 6, 4, 4)


def test_verdicts_are_the_heads_view_of_the_features():
    network = ResNet(3, 32, classes=7, widths=(8, 16, 32), blocks=2, dropout=0.5).eval()
    images = torch.randn(4, 3, 32, 32)
    assert network.features(images).shape == (4, 32)
    torch.testing.assert_close(network.head(network.features(images)), network(images))
    assert torch.equal(network.training_logits(images), network(images))


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match="36 pixels cannot be halved by 4 stages"):
        ResNet(3, 36, classes=2)
    with pytest.raises(ValueError, match="stem_stride: 3"):
        ResNet(3, 32, classes=2, stem_stride=3)


def test_it_learns_drawn_dishes(dishes):
    images = Folder(dishes / "train", 16)
    pixels, labels = images.batch(range(len(images)))
    batch = Batch(pixels.float() / 127.5 - 1, labels)
    objective = Classification(ResNet(3, 16, classes=8, widths=(8, 16), blocks=1, stem_stride=1), label_smoothing=0.1)
    moved = torch.optim.AdamW(objective.parameters(), lr=0.01)
    for _ in range(60):
        losses = objective.loss(batch)
        moved.zero_grad()
        losses["loss"].backward()
        moved.step()
    objective.eval()
    assert objective.loss(batch)["accuracy"] > 0.9

"""Collapse: warned of when a class's images hardly differ, and only then."""

import logging

import pytest
import torch

from foodgen.data.folder import Folder
from foodgen.engine.evaluator import warn_of_collapse
from foodgen.metrics.collapse import PixelSpread, deviations, spread


def test_deviations_are_within_classes():
    values = torch.tensor([[1.0, 0.0], [3.0, 0.0], [10.0, 10.0], [10.0, 10.0], [7.0, 7.0]])
    assert deviations(values, [0, 0, 1, 1, 2]) == {0: pytest.approx(1.0), 1: 0.0}  # variances 2 and 0, mean 1


def test_equal_variety_is_a_share_of_one():
    torch.manual_seed(0)
    made, real = torch.randn(4000, 5) * 2, torch.randn(4000, 5)
    labels = torch.arange(4000) % 2
    shares = spread(made, labels, real, labels)
    assert shares == {0: pytest.approx(2, rel=0.05), 1: pytest.approx(2, rel=0.05)}


def test_real_photos_have_not_collapsed_and_copies_have(dishes, caplog):
    train, test = Folder(dishes / "train", 16), Folder(dishes / "test", 16)
    pixels = PixelSpread(train)
    images, labels = torch.stack([test[i][0] for i in range(len(test))]), list(test.labels)
    warn_of_collapse("pixels", pixels(images, labels), test.classes)
    assert not caplog.text
    first = torch.tensor([labels.index(label) for label in labels])
    noisy = images[first].int() + torch.randint(-2, 3, images.shape)
    with caplog.at_level(logging.WARNING):
        warn_of_collapse("pixels", pixels(noisy.clamp(0, 255).byte(), labels), test.classes)
    assert "collapse: the pixels of 8 of 8 classes vary less than a tenth" in caplog.text
    assert "cookies (" in caplog.text


def test_one_collapsed_class_is_named_alone(dishes, caplog):
    test = Folder(dishes / "test", 16)
    images, labels = torch.stack([test[i][0] for i in range(len(test))]), torch.tensor(list(test.labels))
    images[labels == 3] = images[labels == 3][:1]
    warn_of_collapse("pixels", PixelSpread(test)(images, labels.tolist()), test.classes)
    assert (
        f"the pixels of 1 of 8 classes vary less than a tenth as much as real images': {test.classes[3]} (0.0%)"
        in caplog.text
    )

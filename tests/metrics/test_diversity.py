"""Collapse: warned of when a class's images hardly differ, and only then."""

import logging

import pytest
import torch

from foodgen.data.folder import Folder
from foodgen.evaluation.sampling import interleave, warn_of_collapse
from foodgen.metrics.diversity import PixelDiversity, deviations, diversity


def test_deviations_are_within_classes():
    values = torch.tensor([[1.0, 0.0], [3.0, 0.0], [10.0, 10.0], [10.0, 10.0], [7.0, 7.0]])
    assert deviations(values, [0, 0, 1, 1, 2]) == {0: pytest.approx(1.0), 1: 0.0}  # variances 2 and 0, mean 1


def test_equal_variety_is_a_share_of_one():
    torch.manual_seed(0)
    made, real = torch.randn(4000, 5) * 2, torch.randn(4000, 5)
    labels = torch.arange(4000) % 2
    shares = diversity(made, labels, real, labels)
    assert shares == {0: pytest.approx(2, rel=0.05), 1: pytest.approx(2, rel=0.05)}


def test_real_photos_have_not_collapsed_and_copies_have(dishes, caplog):
    train, test = Folder(dishes / "train", 16), Folder(dishes / "test", 16)
    pixels = PixelDiversity(train)
    images, labels = torch.stack([test[i][0] for i in range(len(test))]), list(test.labels)
    warn_of_collapse("pixels", pixels(images, labels))
    assert not caplog.text
    first = torch.tensor([labels.index(label) for label in labels])
    noisy = images[first].int() + torch.randint(-2, 3, images.shape)
    with caplog.at_level(logging.WARNING):
        warn_of_collapse("pixels", pixels(noisy.clamp(0, 255).byte(), labels))
    assert "collapse: the pixels of 8 of 8 classes vary less than a tenth" in caplog.text
    assert "cookies (" in caplog.text


def test_with_one_image_a_class_all_are_looked_at_together(dishes, caplog):
    train = Folder(dishes / "train", 16)
    images = torch.stack([train[list(train.labels).index(label)][0] for label in range(8)])
    shares = PixelDiversity(train)(images, range(8))
    assert shares == {"all classes together": pytest.approx(1, abs=0.3)}
    warn_of_collapse("pixels", shares)
    assert not caplog.text
    warn_of_collapse("pixels", PixelDiversity(train)(images[:1].expand(8, -1, -1, -1), range(8)))
    assert "all classes together (0.0%)" in caplog.text


def test_one_collapsed_class_is_named_alone(dishes, caplog):
    test = Folder(dishes / "test", 16)
    images, labels = torch.stack([test[i][0] for i in range(len(test))]), torch.tensor(list(test.labels))
    images[labels == 3] = images[labels == 3][:1]
    warn_of_collapse("pixels", PixelDiversity(test)(images, labels.tolist()))
    assert (
        f"the pixels of 1 of 8 classes vary less than a tenth as much as real images': {test.classes[3]} (0.0%)"
        in caplog.text
    )


def test_a_single_image_has_no_diversity(dishes):
    """As in a grid of one image: nothing is said, and nothing fails."""
    one = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert PixelDiversity(Folder(dishes / "test", 16))(one, [0]) == {}


def test_processes_without_an_image_do_not_disturb_the_others():
    parts = [torch.ones(1, 3, 2, 2), 2 * torch.ones(1, 3, 2, 2), torch.empty(0)]
    assert interleave(parts)[:, 0, 0, 0].tolist() == [1, 2]

"""Measures of models on real images: the bound's sum, a classifier's accuracy, decibels."""

import pytest
import torch
from torch import nn

from foodgen.core.networks import Autoencoder
from foodgen.core.randomness import isolated_randomness
from foodgen.diffusion.classifier import NoisyClassifier
from foodgen.diffusion.ddpm import DDPM
from foodgen.diffusion.denoiser import PreconditionedDenoiser
from foodgen.diffusion.edm import EDM
from foodgen.evaluation.sampling import ModelEvaluator
from foodgen.metrics.of_models import PSNR, Accuracy, BitsPerDimension


class Zero(nn.Module):
    def forward(self, x, time, labels=None):
        return 0 * x


IMAGES = ((torch.randint(0, 256, (40, 3, 4, 4)) / 127.5) - 1).float()
LABELS = torch.zeros(40, dtype=torch.long)


@pytest.mark.parametrize("process", [DDPM("cosine", num_timesteps=30), EDM()], ids=["ddpm", "edm"])
def test_few_looks_mean_what_all_of_them_sum_up_to(process):
    model = PreconditionedDenoiser(Zero(), process, 3, 4, classes=2)
    with torch.no_grad(), isolated_randomness(0):
        whole = BitsPerDimension(steps=30, terms=30).per_image(model, IMAGES, LABELS).mean()
        few = torch.stack(
            [BitsPerDimension(steps=30, terms=3).per_image(model, IMAGES, LABELS) for _ in range(60)]
        ).flatten()
    assert few.mean().item() == pytest.approx(whole.item(), abs=4 * few.std().item() / len(few) ** 0.5)


def test_whose_bits_can_be_counted():
    with pytest.raises(ValueError, match="takes a denoiser of pixels"):
        BitsPerDimension().check(PreconditionedDenoiser(Zero(), EDM(), 4, 4, classes=2))
    with pytest.raises(ValueError, match="Linear is none"):
        BitsPerDimension().check(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="terms: 9"):
        BitsPerDimension(steps=8, terms=9)


def test_accuracy_is_the_share_of_right_answers():
    class Always(nn.Module):
        def forward(self, x, time):
            return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    labels = torch.tensor([1] * 30 + [0] * 10)
    with isolated_randomness(0):
        assert Accuracy().per_image(NoisyClassifier(Always(), EDM(), 3, 4), IMAGES, labels).mean() == 0.75


def test_decibels_are_of_the_full_range():
    class Off(Autoencoder):
        normalise = denormalise = None

        def encode(self, images):
            return images, None

        def decode(self, latents, labels=None):
            return (latents + 0.02).clamp(-1, 1)

    expected = 20 * torch.log10(torch.tensor(2 / 0.02))  # the range is 2, the error 0.02
    torch.testing.assert_close(PSNR().per_image(Off(), IMAGES * 0.9, LABELS).mean(), expected)


class Few:
    classes, labels = ["a", "b"], [0] * 40

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return ((IMAGES[index] + 1) * 127.5).round().to(torch.uint8), 0


def test_measuring_does_not_depend_on_what_was_drawn_before_nor_disturb_it():
    model = PreconditionedDenoiser(Zero(), EDM(), 3, 4, classes=2)
    per_image = BitsPerDimension(terms=2).per_image
    evaluator = ModelEvaluator(Few(), lambda x: x / 127.5 - 1, torch.device("cpu"), 8)
    state = torch.get_rng_state()
    first = evaluator(model, 3, per_image)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert evaluator(model, 3, per_image) == first
    assert evaluator(model, 4, per_image) != first

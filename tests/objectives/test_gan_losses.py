"""GAN losses against torch's cross entropy and the papers' formulas."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from foodgen.core.registry import gan_losses

REAL, FAKE = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-1.5, 0.7, 3.0])
ONES, ZEROS = torch.ones(3), torch.zeros(3)


def both(name):
    loss = gan_losses[name]()
    return loss.discriminator(REAL, FAKE), loss.generator(FAKE, lambda: REAL)


def test_logistic_is_cross_entropy():
    judged, deceived = both("logistic")
    torch.testing.assert_close(judged, cross_entropy(REAL, ONES) + cross_entropy(FAKE, ZEROS))
    torch.testing.assert_close(deceived, cross_entropy(FAKE, ONES))


def test_relativistic_is_cross_entropy_of_pairs():
    judged, deceived = both("relativistic")
    torch.testing.assert_close(judged, cross_entropy(REAL - FAKE, ONES))
    torch.testing.assert_close(deceived, cross_entropy(REAL - FAKE, ZEROS))


def test_hinge_counts_what_is_inside_the_margin():
    judged, deceived = both("hinge")
    assert judged.item() == pytest.approx((0 + 1.5 + 0.7) / 3 + (0 + 1.7 + 4) / 3)
    assert deceived.item() == pytest.approx(-2.2 / 3)


def test_wasserstein_is_the_distance_of_the_means():
    judged, deceived = both("wasserstein")
    assert judged.item() == pytest.approx(2.2 / 3 - 1.8 / 3)
    assert deceived.item() == pytest.approx(-2.2 / 3)


@pytest.mark.parametrize("name", ["logistic", "hinge", "wasserstein", "relativistic"])
def test_players_pull_the_fakes_apart(name):
    loss = gan_losses[name]()
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all()  # going down raises the logits of real images
    assert (fake.grad > 0).all()
    fake.grad = None
    loss.generator(fake, lambda: real.detach()).backward()
    assert (fake.grad < 0).all()

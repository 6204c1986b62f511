"""What the discriminator sees: differentiable, nothing at zero, and in ADA as often as it is needed."""

import pytest
import torch

from foodgen.core.randomness import seed_step
from foodgen.core.registry import discriminator_augmentations
from foodgen.objectives.ada import AdaptiveAugment


@pytest.fixture(autouse=True)
def _seeded():
    seed_step(0, 1)


@pytest.fixture
def images():
    return torch.randn(40, 3, 16, 16)


def test_no_strength_changes_nothing(images):
    torch.testing.assert_close(discriminator_augmentations["diff_augment"](strength=0.0)(images), images)


def test_no_probability_changes_nothing(images):
    torch.testing.assert_close(AdaptiveAugment()(images), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_diff_augment_lets_gradients_through_twice(policy):
    change = discriminator_augmentations["diff_augment"](policy=[policy])

    def changed(x):
        seed_step(0, 1)
        return change.augment(x)  # in double precision

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(changed, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(changed, x, fast_mode=True)
    assert not torch.equal(changed(x), x)


def test_translation_moves_by_whole_pixels_and_fills_with_zeros(images):
    moved = discriminator_augmentations["diff_augment"](policy=["translation"])(images)
    found = set()
    for image, result in zip(images, moved, strict=True):
        wide = torch.nn.functional.pad(image, [2] * 4)
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(wide[:, i : i + 16, j : j + 16], result)]
        assert len(places) == 1
        found |= {*places}
    assert {i for i, _ in found} == {j for _, j in found} == {0, 1, 2, 3, 4}


def test_cutout_blanks_a_square_of_half_the_size(images):
    kept = discriminator_augmentations["diff_augment"](policy=["cutout"])(images) / images
    areas = (kept[:, 0] == 0).sum(dim=(1, 2))
    assert areas.max() == 64
    assert areas.min() >= 16  # a quarter of the square, in a corner
    assert set(kept.unique().tolist()) == {0.0, 1.0}


def test_color_keeps_what_it_does_not_mean_to_change():
    grey = torch.randn(20, 1, 8, 8).expand(-1, 3, -1, -1)
    changed = discriminator_augmentations["diff_augment"](policy=["color"])(grey)
    torch.testing.assert_close(changed[:, :1].expand_as(changed), changed)  # no colour comes in
    correlation = torch.stack(
        [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(grey, changed, strict=True)]
    )
    torch.testing.assert_close(correlation, torch.ones(20))
    assert (changed.mean(dim=(1, 2, 3)) - grey.mean(dim=(1, 2, 3))).abs().max() <= 0.5


@pytest.mark.parametrize("signs", [1.0, -1.0])
def test_probability_follows_the_sign_statistic(signs):
    module = AdaptiveAugment(probability=0.5, ramp=800, interval=4)
    for _ in range(8):
        module.observe(torch.full((10,), 3.0 * signs))
    # two adjustments of 40 images each, a twentieth of the ramp
    assert module.probability.item() == pytest.approx(0.5 + signs * 2 * 40 / 800)


def test_probability_stays_one():
    module = AdaptiveAugment(probability=0.99, ramp=10, interval=1)
    module.observe(torch.ones(100))
    assert module.probability == 1
    module = AdaptiveAugment(probability=0.01, ramp=10, interval=1)
    module.observe(-torch.ones(100))
    assert module.probability == 0


def test_the_target_is_held():
    module = AdaptiveAugment(probability=0.2, target=0.6, ramp=1000, interval=1)
    module.observe(torch.tensor([1.0] * 9 + [-1.0]))  # 0.8 is above 0.6
    assert module.probability > 0.2
    module = AdaptiveAugment(probability=0.2, target=0.6, ramp=1000, interval=1)
    module.observe(torch.tensor([1.0] * 7 + [-1.0] * 3))  # 0.4 is below
    assert module.probability < 0.2


def test_what_adaptive_remembers_is_its_state():
    one, other = AdaptiveAugment(ramp=100, interval=3), AdaptiveAugment(ramp=100, interval=3)
    one.observe(torch.ones(5))
    other.load_state_dict(one.state_dict())
    for module in (one, other):
        module.observe(torch.ones(5))
        module.observe(torch.ones(5))
    assert one.probability == other.probability == pytest.approx(0.15)


def test_a_fixed_probability_does_not_move():
    module = AdaptiveAugment(probability=0.3, fixed=True, interval=1, ramp=10)
    module.observe(torch.ones(10))
    assert module.probability == pytest.approx(0.3)


def test_turns_are_torchs_turns(images):
    turned = AdaptiveAugment(transforms=["rotate90"], probability=1.0)(images)
    found = [
        [k for k in range(4) if torch.allclose(torch.rot90(a, k, (1, 2)), b, atol=1e-4)]
        for a, b in zip(images, turned, strict=True)
    ]
    assert all(len(kinds) == 1 for kinds in found)
    assert {kinds[0] for kinds in found} == {0, 1, 2, 3}


def test_flips_are_torchs_flips(images):
    flipped = AdaptiveAugment(transforms=["xflip"], probability=1.0)(images)
    which = [torch.allclose(a.flip(-1), b, atol=1e-5) for a, b in zip(images, flipped, strict=True)]
    assert 10 < sum(which) < 30
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(images, flipped, strict=True)]
    assert [not value for value in which] == same


def test_shifts_are_whole_pixels_reflected_at_the_border(images):
    shifted = AdaptiveAugment(transforms=["xint"], probability=1.0)(images)
    wide = torch.nn.functional.pad(images, [4] * 4, mode="constant")
    for image, result in zip(wide, shifted, strict=True):
        inner = [
            (i, j)
            for i in range(9)
            for j in range(9)
            if torch.allclose(image[:, i + 4 : i + 12, j + 4 : j + 12], result[:, 4:12, 4:12], atol=1e-4)
        ]
        assert len(inner) == 1


def test_hue_and_saturation_leave_grey_alone():
    grey = torch.randn(8, 1, 4, 4).expand(-1, 3, -1, -1)
    torch.testing.assert_close(AdaptiveAugment(transforms=["hue", "saturation"], probability=1.0)(grey), grey)


def test_hue_turns_around_the_grey_axis(images):
    changed = AdaptiveAugment(transforms=["hue"], probability=1.0)(images)
    torch.testing.assert_close(changed.norm(dim=1), images.norm(dim=1))
    torch.testing.assert_close(changed.sum(dim=1), images.sum(dim=1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed, images, atol=0.1)


def test_luma_flip_mirrors_brightness(images):
    changed = AdaptiveAugment(transforms=["lumaflip"], probability=1.0)(images)
    signs = (changed.sum(dim=1) / images.sum(dim=1)).mean(dim=(1, 2))
    assert {round(value) for value in signs.tolist()} == {-1, 1}


def test_brightness_and_contrast_are_affine(images):
    changed = AdaptiveAugment(transforms=["brightness", "contrast"], probability=1.0)(images)
    for before, after in zip(images, changed, strict=True):
        slope, offset = torch.linalg.lstsq(
            torch.stack([before.flatten(), torch.ones(768)], dim=1), after.flatten()[:, None]
        ).solution.flatten()
        torch.testing.assert_close(before * slope + offset, after, atol=1e-4, rtol=1e-4)
        assert 2**-2 < slope < 2**2


def test_adaptive_lets_gradients_through():
    x, way = torch.randn(2, 2, 3, 8, 8)
    module, weights = AdaptiveAugment(probability=1.0), torch.randn(2, 3, 8, 8)

    def changed(x):
        seed_step(0, 1)
        return (module(x) * weights).sum()

    x.requires_grad_(True)
    changed(x).backward()
    with torch.no_grad():  # it is linear in the image, so that a step of any length tells its slope
        assert (changed(x + way) - changed(x)).item() == pytest.approx((x.grad * way).sum().item(), rel=1e-3)
    assert x.grad.abs().sum() > 0


def test_autocast_changes_nothing(images):
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(AdaptiveAugment()(images), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*AdaptiveAugment.geometry, *AdaptiveAugment.colour])
def test_each_change_is_as_frequent_as_the_probability_says(name):
    x = torch.randn(2000, 3, 8, 8)
    changed = AdaptiveAugment(transforms=[name], probability=0.3)(x)
    share = ((changed - x).abs().amax(dim=(1, 2, 3)) > 1e-4).float().mean().item()
    idle = {"xflip": 0.5, "rotate90": 0.25, "xint": 0.25, "lumaflip": 0.5}  # chances that the change is none
    assert share == pytest.approx(0.3 * (1 - idle.get(name, 0.0)), abs=0.05)


def test_geometry_comes_in_its_order():
    # a flip, then a shift: a pixel right of the middle ends left of it, moved by the shift
    module = AdaptiveAugment(transforms=["xflip", "xfrac"], probability=1.0)
    x = torch.randn(60, 3, 16, 16)
    seed_step(0, 1)
    places = module._geometry(x)
    flips, moves = places[:, 0, 0], places[:, 0, 2]
    seed_step(0, 1)
    moved = AdaptiveAugment(transforms=["xfrac"], probability=1.0)._geometry(x)[:, 0, 2]
    torch.testing.assert_close(moves, flips * moved)  # what is looked up: the move undone, then the flip


def test_about_as_many_change_as_the_probability_says():
    x = torch.randn(2000, 3, 4, 4)
    changed = AdaptiveAugment(transforms=["brightness"], probability=0.3)(x)
    share = ((changed - x).abs().amax(dim=(1, 2, 3)) > 1e-6).float().mean()
    assert share.item() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("diff_augment", {"policy": ["colour"]}, "there is no colour"),
        ("diff_augment", {"strength": 2.0}, "strength"),
        ("ada", {"transforms": ["zoom"]}, "there is no zoom"),
        ("ada", {"probability": 1.5}, "probability"),
    ],
)
def test_mistakes_are_named(name, arguments, match):
    with pytest.raises(ValueError, match=match):
        discriminator_augmentations[name](**arguments)

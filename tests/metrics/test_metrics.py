"""Metrics against torch-fidelity, prdc and closed forms; features of other spaces."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch import nn
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from foodgen.core.types import MetricInputs
from foodgen.data.folder import Folder
from foodgen.metrics.feature_cache import features_in_chunks, features_of
from foodgen.metrics.fid import FID, FIDInfinity, frechet_distance
from foodgen.metrics.kid import KID, kernel_distance
from foodgen.metrics.label_accuracy import LabelAccuracy
from foodgen.metrics.manifold import Coverage, Precision, radii
from foodgen.metrics.memorisation import Memorisation, nearest
from foodgen.metrics.spaces import ClassifierSpace, Pixels, Pretrained, hash_of
from foodgen.models.resnet import ResNet


def normal(count, width, seed, shift=0.0, scale=1.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * scale + shift


def inputs(generated, real, training=(), labels=None, real_labels=None, classify=None):
    return MetricInputs(
        generated,
        torch.zeros(len(generated), dtype=torch.long) if labels is None else labels,
        real,
        torch.zeros(len(real), dtype=torch.long) if real_labels is None else real_labels,
        lambda: iter(training),
        classify,
    )


def test_kernel_distance_is_torch_fidelitys():
    a, b = normal(120, 16, 1, 0.3, 1.2), normal(120, 16, 2)
    theirs = kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=120, verbose=False)
    ours = KID()(inputs(a, b))
    assert ours["kid"] == pytest.approx(1000 * theirs["kernel_inception_distance_mean"], rel=1e-6)


def test_kernel_distance_has_no_bias_and_knows_its_error():
    """Over many pairs of samples of the same two normal distributions, whose distance a large sample tells."""
    draws = [kernel_distance(normal(60, 4, 2 * i, 0.5), normal(80, 4, 2 * i + 1)) for i in range(300)]
    values, errors = np.array(draws).T
    true, own = kernel_distance(normal(6000, 4, 7001, 0.5), normal(6000, 4, 7002))
    assert values.mean() == pytest.approx(true, abs=3 * (values.std() / 300**0.5 + own))
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)
    equal = [kernel_distance(normal(40, 4, 2 * i), normal(40, 4, 2 * i + 1))[0] for i in range(300)]
    assert abs(np.mean(equal)) < 3 * np.std(equal) / 300**0.5  # unbiased: about 0, and half of them below


def balanced(seed, each, diversity=2.0):
    """Ten clusters, `each` rows of every one, and their numbers."""
    centres = normal(10, 6, 99, scale=diversity)
    labels = torch.arange(10).repeat_interleave(each)
    return centres[labels] + normal(10 * each, 6, seed), labels


def test_kernel_distance_of_class_balanced_sets_has_no_bias():
    """Equal distributions: the distance is 0; pairs taken regardless of class are below it for certain."""
    aware, blind = [], []
    for seed in range(60):
        (a, of_a), (b, of_b) = balanced(2 * seed, 8), balanced(2 * seed + 1, 12)
        aware.append(kernel_distance(a, b, of_a, of_b)[0])
        blind.append(kernel_distance(a, b)[0])
    assert abs(np.mean(aware)) < 3 * np.std(aware) / 60**0.5
    assert np.mean(blind) < -10 * np.std(blind) / 60**0.5


def test_the_error_of_class_balanced_sets_is_their_spread():
    pairs = [(balanced(2 * seed, 20), balanced(2 * seed + 1, 20)) for seed in range(150)]
    found = [kernel_distance(a + 0.7, b, of_a, of_b) for (a, of_a), (b, of_b) in pairs]
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)


def test_precision_and_recall_are_torch_fidelitys():
    generated, real = normal(150, 8, 1, 0.2, 0.7), normal(200, 8, 2)
    theirs = prc_features_to_metric(
        real, generated, prc_neighborhood=3, prc_batch_size=64, verbose=False, save_cpu_ram=False
    )
    ours = Precision()(inputs(generated, real))
    assert {round(ours[name], 6) for name in ("precision", "recall")} == {
        round(float(theirs[name]), 6) for name in ("precision", "recall")
    }
    assert ours["precision"] > ours["recall"]  # narrower than the real set


@pytest.mark.parametrize(("count", "shift"), [(150, 0.0), (90, 0.5)])
def test_all_four_are_prdcs(count, shift, capsys):
    generated, real = normal(count, 8, 1, shift, 0.8).double(), normal(200, 8, 2).double()
    for metric in (Precision(), Coverage()):
        theirs = compute_prdc(real.numpy(), generated.numpy(), nearest_k=metric.k)
        found = metric(inputs(generated, real))
        numbers = {name for name in found if not name.endswith("_by_class")}
        assert len(numbers) == 2
        for name in numbers:
            assert found[name] == pytest.approx(theirs[name], abs=1e-9), name


def test_an_equal_set_is_all_covered_and_too_few_images_are_told():
    real = normal(50, 4, 1)
    assert Precision()(inputs(real, real)) == {"precision": 1.0, "recall": 1.0, "precision_by_class": {0: 1.0}}
    far, labels = torch.cat([real[:10], real[:20] + 99]), torch.arange(10).repeat(3)
    by_class = Precision()(inputs(far, real, labels=labels))["precision_by_class"]
    assert by_class == dict.fromkeys(range(10), 0.3333)
    assert Coverage()(inputs(real, real))["coverage"] == 1.0
    with pytest.raises(ValueError, match="3-th neighbour wants 4 images"):
        radii(real[:3], 3)


def test_large_sets_go_in_parts(monkeypatch):
    a, b = normal(70, 4, 1), normal(90, 4, 2)
    whole = [kernel_distance(a, b), Precision()(inputs(a, b)), Coverage()(inputs(a, b))]
    monkeypatch.setattr("foodgen.metrics.kid.ROWS", 16)
    monkeypatch.setattr("foodgen.metrics.manifold.ROWS", 16)
    parts = [kernel_distance(a, b), Precision()(inputs(a, b)), Coverage()(inputs(a, b))]
    assert parts[0] == pytest.approx(whole[0])
    assert parts[1:] == whole[1:]


def test_extrapolation_takes_the_generated_sets_bias_away():
    """Two equal distributions, the real one all but endless: the distance is 0, FID of 400 images is not."""
    real = normal(40_000, 20, 1)
    found = [(FID(), []), (FIDInfinity(), [])]
    for seed in range(12):
        for metric, values in found:
            values += metric(inputs(normal(400, 20, 100 + seed), real)).values()
    (_, plain), (_, extrapolated) = found
    assert np.mean(plain) > 0.2
    assert abs(np.mean(extrapolated)) < 0.15 * np.mean(plain)


def test_nearest_is_found_across_parts():
    points, others = normal(20, 3, 1), normal(50, 3, 2)
    distance, number = nearest(points, others.split(7))
    whole = torch.cdist(points, others)
    assert torch.equal(number, whole.argmin(dim=1))
    torch.testing.assert_close(distance, whole.min(dim=1).values)


def test_copies_are_found_and_fresh_images_are_not():
    training, real = normal(400, 6, 1), normal(300, 6, 2)
    fresh = Memorisation()(inputs(normal(300, 6, 3), real, training.split(100)))
    assert fresh["memorisation"] < 0.04
    assert fresh["nearer_than_real"] == pytest.approx(0.5, abs=0.07)
    copies = training[100:160] + 1e-5
    found = Memorisation()(inputs(torch.cat([copies, normal(60, 6, 4)]), real, training.split(100)))
    assert 0.5 <= found["memorisation"] < 0.55
    first, second, _ = found["nearest_pairs"][0]
    assert second == 100 + first
    same = Memorisation()(inputs(real, real, training.split(100)))
    assert same["nearer_than_real"] == 0.5


def test_label_accuracy_counts_by_class():
    labels = torch.tensor([0, 0, 1, 1])
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
    found = LabelAccuracy()(inputs(logits, logits, labels=labels, real_labels=1 - labels, classify=lambda x: x))
    assert found["label_accuracy"] == 0.75
    assert found["real_label_accuracy"] == 0.25
    assert found["label_accuracy_by_class"] == {0: [0.5, 0.0], 1: [1.0, 0.5]}
    with pytest.raises(ValueError, match="Pixels is no classifier"):
        LabelAccuracy().check(Pixels(image_size=8))


def test_a_classifiers_features_tell_its_classes():
    network = ResNet(3, 16, classes=5, widths=(8, 16), blocks=1).eval()
    space = ClassifierSpace("there", lambda path: network, 16, torch.device("cpu"))
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    assert space(images).shape == (6, space.width)
    torch.testing.assert_close(space.classifier()(space(images)), network(images.float() / 127.5 - 1).detach())
    with pytest.raises(ValueError, match="images of 16 pixels a side, these have 32"):
        ClassifierSpace("there", lambda path: network, 32, torch.device("cpu"))
    with pytest.raises(ValueError, match="is no classifier of clean images"):
        ClassifierSpace("there", lambda path: nn.Linear(1, 1), 16, torch.device("cpu"))
    other = ResNet(3, 16, classes=5, widths=(8, 16), blocks=1)
    assert hash_of(other) != hash_of(network) == space.identity


def test_a_networks_last_map_is_averaged():
    class Maps(nn.Module):
        widths = (2, 3)
        resolution = 8

        def forward(self, images):
            return [images[:, :2], images]

    space = Pretrained(Maps(), torch.device("cpu"))
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(space(images), (images.float() / 127.5 - 1).mean(dim=(2, 3)))
    assert space.width == 3


def test_pixels_are_never_kept(dishes, tmp_path):
    images = Folder(dishes / "test", 16)
    space = Pixels(16)
    whole = features_of(space, images, 10, tmp_path)
    assert torch.equal(torch.cat(list(features_in_chunks(space, images, 7, tmp_path))), whole)
    assert not any(tmp_path.iterdir())
    assert whole.max() <= 1
    assert frechet_distance(whole, whole) == pytest.approx(0, abs=1e-4)

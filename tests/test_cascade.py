"""The cascade: an upsampler that starts from a GAN, and diffusion of small images that it makes large."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import foodgen
import inference
import train
from foodgen.core.errors import ConfigError, UserError
from foodgen.core.types import Batch
from foodgen.data.codecs import LowResolution
from foodgen.diffusion.guidance import NoGuidance
from foodgen.models.pretrained import EfficientNetLite
from foodgen.models.projected_gan_slim import SlimFastGAN
from foodgen.models.upsampler import SteeredUpsampler
from foodgen.objectives.adversarial import Adversarial
from foodgen.objectives.gan_losses import Hinge
from foodgen.objectives.penalties import PathLength, PenaltyInputs
from foodgen.objectives.perceptual import Perceptual, PixelError
from foodgen.objectives.super_resolution import SuperResolution
from foodgen.samplers.ancestral import Ancestral
from foodgen.samplers.deterministic import Euler, Heun
from foodgen.samplers.dpm_solver import DPMSolver
from foodgen.samplers.stochastic import Stochastic
from foodgen.training.checkpoint import read
from tests.runs import digest, last, run_of, score_by_colours
from tests.samplers.test_against_theory import DEVIATION, MEAN, PROCESSES, ExactDenoiser, make_process
from tests.test_recipes import stop_at


def upsampler(classes=3):
    return SteeredUpsampler(generator(classes), 3, 32, 8, encoder_widths=[4, 6])


def generator(classes=3):
    return SlimFastGAN(3, 32, classes, widths=[16, 12, 8], z_dim=8, w_dim=8)


@pytest.mark.long
def test_both_stages_train_resume_to_the_bit_and_sample(small, tmp_path, monkeypatch):
    score_by_colours(monkeypatch)
    for name, *options in (
        ["upsampler"],
        ["cascade", f"codec.path={run_of(tmp_path, 'upsampler-whole')}", "sampler.steps=3"],
    ):
        arguments = small(f"small/{name}", *options, "train.val_step=100")
        assert train.main([*arguments, f"exp.run={name}-whole"]) == 0
        with monkeypatch.context() as patch:
            stop_at(3, patch)
            train.main([*arguments, f"exp.run={name}-parts"])
        train.main([*arguments, f"exp.run={name}-parts", "train.checkpoint_path=latest"])
        assert digest(last(tmp_path, f"{name}-parts")) == digest(last(tmp_path, f"{name}-whole"))
    sampled = [*options, "exp.run=cascade-parts", "train.checkpoint_path=latest", "inference.count=16"]
    inference.main(small("small/cascade", *sampled, "inference.metrics=[fid]", "inference.visualisations=[trajectory]"))
    found = json.loads((run_of(tmp_path, "cascade-parts") / "metrics.json").read_text())
    assert found["fid"] > 0
    assert len(list((run_of(tmp_path, "cascade-parts") / "images").glob("*/*.png"))) == 16


@pytest.mark.long
def test_networks_start_from_another_training(small, tmp_path, monkeypatch):
    stop_at(2, monkeypatch)
    size = "objective.model.z_dim=48"
    train.main(small("small/projected_gan_slim", "exp.run=gan", size))
    gan = str(last(tmp_path, "gan"))
    export = tmp_path / "export"
    from export import main

    main(
        small(
            "small/projected_gan_slim",
            *(
                "exp.run=gan",
                size,
                f"train.checkpoint_path={gan}",
                f"export.output_dir={export}",
                "export.partners=true",
            ),
        )
    )
    start = f"train.initial_weights={{model.generator: {export}, discriminator: {export}}}"
    frozen = [f"optimizers.{name}.lr=1e-12" for name in ("model", "discriminator")]
    train.main(small("small/upsampler", "exp.run=up", start, *frozen))
    old, new = read(Path(gan)), read(last(tmp_path, "up")).weights
    for name, tensor in old.average.items():
        if tensor.is_floating_point() and "strength" not in name and "running" not in name and "._" not in name:
            torch.testing.assert_close(new[f"model.generator.{name}"], tensor, rtol=0.01, atol=1e-4)
    heads = [name for name in old.weights if name.startswith("discriminator.heads") and name.endswith("original")]
    for name in heads:
        torch.testing.assert_close(new[name], old.weights[name], rtol=0, atol=1e-5)
    assert heads
    with pytest.raises(ConfigError, match=r"the objective has no network 'model.generater'"):
        train.main(
            small("small/upsampler", "exp.run=other", f"train.initial_weights={{model.generater: {export}}}"),
        )


def test_an_untrained_upsampler_is_its_generator_whose_latent_is_the_noise():
    model, labels = upsampler().eval(), torch.tensor([0, 2])
    low = torch.randn(2, *model.noise_shape)
    latent, noise = model.details(low), torch.zeros(2, *model.generator.noise_shape)
    torch.testing.assert_close(model.decode(low, labels), model.generator.images(latent, labels, noise))


def test_a_limited_latent_keeps_its_noise():
    model = SteeredUpsampler(generator(), 3, 32, 8, encoder_widths=[4, 6], latent_limit=0.5).eval()
    torch.nn.init.constant_(model.to_latent.bias, 100.0)  # drowns the noise, without a limit
    latents = []
    model.generator.synthesis = lambda latent, labels, added: latents.append(latent) or latent
    low = torch.randn(200, *model.noise_shape)
    for limit in (0.5, None):
        model.latent_limit = limit
        model(low, torch.zeros(200, dtype=torch.long))
    assert latents[0].std(dim=0).mean() > 0.8
    assert latents[1].std(dim=0).mean() < 0.02
    torch.nn.init.constant_(model.to_latent.bias, 0.1)  # within the limit nothing is changed
    for limit in (0.5, None):
        model.latent_limit = limit
        model(low, torch.zeros(200, dtype=torch.long))
    torch.testing.assert_close(latents[2], latents[3])


def test_a_limit_leaves_the_gradients_of_an_untrained_encoder_finite():
    """What it adds is 0 at first, where the derivative of a norm is none."""
    gradients = []
    for limit in (0.5, None):
        torch.manual_seed(0)
        model = SteeredUpsampler(generator(), 3, 32, 8, encoder_widths=[4, 6], latent_limit=limit)
        torch.manual_seed(1)
        model(torch.randn(2, *model.noise_shape), torch.tensor([0, 2])).square().sum().backward()
        gradients.append(model.to_latent.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_latent_is_white_and_sees_no_slopes():
    model = upsampler()
    slopes = torch.linspace(-1, 1, 8)[:, None] + torch.linspace(-2, 3, 8)
    noise = torch.randn(5000, *model.noise_shape)
    torch.testing.assert_close(model.details(noise + slopes), model.details(noise), rtol=1e-3, atol=1e-3)
    covariance = torch.cov(model.details(noise).T)
    torch.testing.assert_close(covariance, torch.eye(8), rtol=0, atol=0.06)
    with pytest.raises(ValueError, match="low_resolution: 4 pixels have too few details for z_dim=16"):
        SteeredUpsampler(SlimFastGAN(3, 32, 3, widths=[16, 12, 8], z_dim=16, w_dim=8), 3, 32, 4, encoder_widths=[4])


def test_an_upsampler_averages_down():
    image = torch.rand(1, 3, 32, 32)
    low, log_variance = upsampler().encode(image)
    torch.testing.assert_close(low[0, :, 0, 0], image[0, :, :4, :4].mean(dim=(1, 2)))
    assert log_variance.exp().max() < 1e-12


def test_sizes_that_make_no_upsampler_are_refused():
    with pytest.raises(ValueError, match="encoder_widths: 2 halve 16 pixels"):
        SteeredUpsampler(generator(), 3, 32, 16, encoder_widths=[4, 6])


def test_small_images_and_back():
    codec = LowResolution(32, 8, load_pretrained=lambda path: None)
    flat = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    large = flat.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    assert codec.encode(large).shape == (2, 3, 8, 8)
    assert torch.equal(codec.decode(codec.encode(large)), large)


def test_another_model_is_no_upsampler():
    with pytest.raises(ConfigError, match="here holds a Linear, not an upsampler"):
        LowResolution(32, 8, lambda path: torch.nn.Linear(1, 1), path="here")
    with pytest.raises(ConfigError, match=r"enlarges 8 pixels to 32, not codec.low_resolution=16 to"):
        LowResolution(32, 16, lambda path: upsampler(), path="here")
    with pytest.raises(ConfigError, match=r"to 32, not codec.low_resolution=8 to data.image_size=64"):
        LowResolution(64, 8, lambda path: upsampler(), path="here")
    for size in (5, 0):
        with pytest.raises(ConfigError, match=f"{size} does not divide 32"):
            LowResolution(32, size, lambda path: None)


class Discriminator(torch.nn.Module):
    def forward(self, images, labels):
        return images.mean(dim=(1, 2, 3))


def test_small_images_are_as_noisy_as_asked():
    seen = []

    class Watched(SteeredUpsampler):
        def forward(self, latents, labels=None):
            seen.append(latents)
            return super().forward(latents, labels)

    model = Watched(generator(), 3, 32, 8, encoder_widths=[4, 6])
    objective = SuperResolution(model, Discriminator(), Hinge(), noise_min=0.1, noise_max=1.0)
    batch = Batch(torch.zeros(256, 3, 32, 32), torch.zeros(256, dtype=torch.long))
    objective.generator_loss({}, batch)
    deviations = seen[0].flatten(1).std(dim=1)
    assert 0.08 < deviations.min() < 0.12
    assert 0.85 < deviations.max() < 1.15
    assert deviations.log().mean().exp().item() == pytest.approx(0.1**0.5, rel=0.15)
    with pytest.raises(ValueError, match="noise_min, noise_max"):
        SuperResolution(model, Discriminator(), Hinge(), noise_min=0.0)


def test_distances_from_the_real_image():
    real = torch.rand(2, 3, 32, 32) * 2 - 1
    inputs = PenaltyInputs(None, None, real, real + 0.25, torch.tensor([0, 1]))
    assert PixelError(resolution=8)(inputs).item() == pytest.approx(0.25, rel=1e-4)
    checkers = torch.ones(32, 32)
    checkers[::2, ::2] = checkers[1::2, 1::2] = -1
    inputs.fake = real + checkers
    assert PixelError(resolution=8)(inputs).item() == pytest.approx(0.0, abs=1e-5)
    perceptual = Perceptual(EfficientNetLite(resolution=64))
    assert perceptual(inputs).item() > 0.01
    inputs.fake = real.clone()
    assert perceptual(inputs).item() == pytest.approx(0.0, abs=1e-5)


def test_noisy_pairs_weigh_less():
    real = torch.rand(2, 3, 32, 32) * 2 - 1
    fake = real + torch.tensor([0.5, 0.25])[:, None, None, None]
    inputs = PenaltyInputs(None, None, real, fake, torch.tensor([0, 1]), pair_weights=torch.tensor([0.0, 1.0]))
    assert PixelError(resolution=8)(inputs).item() == pytest.approx(0.25 / 2, rel=1e-4)
    objective = SuperResolution(upsampler(), Discriminator(), Hinge(), noise_min=2.0, noise_max=2.0)
    weights = objective._generate(Batch(real, torch.tensor([0, 1]))).pair_weights
    torch.testing.assert_close(weights, torch.full((2,), 0.2))


def test_a_gan_has_no_pairs():
    with pytest.raises(ValueError, match=r"penalties.near: compares a generated image with its real one"):
        Adversarial(generator(), Discriminator(), Hinge(), {"near": PixelError(resolution=8)})
    with pytest.raises(ValueError, match=r"penalties.length: needs a Generator"):
        SuperResolution(upsampler(), Discriminator(), Hinge(), {"length": PathLength()})
    with pytest.raises(ValueError, match="SlimFastGAN is no Upsampler"):
        SuperResolution(generator(), Discriminator(), Hinge())


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", [Euler, Heun, DPMSolver, Ancestral, Stochastic])
def test_sampling_ends_at_the_noise_level_asked_for(process, kind):
    model = ExactDenoiser(make_process(process))
    sampler = kind(NoGuidance(), steps=200, sigma_end=0.5)
    sampler.check(model)
    samples = sampler(model, lambda: torch.randn(20_000, 1, 1, 1))
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx((DEVIATION**2 + 0.5**2) ** 0.5, rel=0.03)
    with pytest.raises(ValueError, match="sigma_end: -1"):
        kind(NoGuidance(), sigma_end=-1)
    with pytest.raises(ValueError, match=r"sigma_end: 1000000.* is not within the noise levels"):
        kind(NoGuidance(), steps=3, sigma_end=1e6).check(ExactDenoiser(make_process("edm")))


def test_an_upsampler_of_other_classes_is_refused(small, tmp_path, monkeypatch, plates):
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        train.main(small("small/upsampler", "exp.run=up"))
    other = tmp_path / "other"
    for split in ("train", "test"):
        (other / split).mkdir(parents=True)
        for folder in sorted((plates / split).glob("[!.]*"))[:3]:
            (other / split / folder.name).symlink_to(folder)
    folders = [f"data.input_train_dir={other / 'train'}", f"data.input_val_dir={other / 'test'}"]
    with pytest.raises(UserError, match="has 8 classes, training has 3"):
        train.main(small("small/cascade", f"codec.path={run_of(tmp_path, 'up')}", *folders))


def test_an_upsampler_in_the_checkpoints_folder_is_found(small, tmp_path, monkeypatch):
    stop_at(1, monkeypatch)
    train.main(small("small/upsampler", "exp.run=up"))
    train.main(small("small/cascade", "codec.path=null", "sampler.sigma_end=0", "exp.run=first"))
    shipped = tmp_path / "shipped"
    shutil.copytree(last(tmp_path, "first"), shipped)
    shutil.copytree(last(tmp_path, "up"), shipped / "upsampler")
    (shipped / "inference.yaml").write_text("codec: {path: upsampler}\nsampler: {steps: 4}\n")
    pipeline = foodgen.load(shipped)
    assert pipeline.parts.codec.decoder is not None
    assert pipeline.config.sampler == {"name": "dpm_solver", "steps": 4, "sigma_end": 0}
    blocks = foodgen.load(last(tmp_path, "first")).sample_tensor(count=2)
    assert torch.equal(blocks[..., ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3), blocks)
    assert not torch.equal(pipeline.sample_tensor(count=2), blocks)

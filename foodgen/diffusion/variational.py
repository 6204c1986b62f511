"""The variational bound on the negative log-likelihood (DDPM, equation 5; IDDPM, section 3)."""

import math

import torch
from torch import Tensor

from foodgen.core.networks import Process
from foodgen.core.types import Prediction
from foodgen.diffusion.process import column

BIN = 2 / 255  # width of one of the 256 values between -1 and 1


def vlb_term(process: Process, x0: Tensor, x: Tensor, t: Tensor, s: Tensor, prediction: Prediction) -> Tensor:
    """One term of the bound, (batch,) bits per dimension: KL(q(x_s | x_t, x_0) || p(x_s | x_t)).

    Where x_s is the image it is -log2 p(x_0 | x_t) of images in 256 levels instead.
    """
    model_mean, _ = process.posterior(x, prediction.denoised, t, s)
    model_log_variance = process.log_variance(prediction.v, t, s)
    true_mean, _ = process.posterior(x, x0, t, s)
    last = column(process.sigma(s) == 0)
    true_log_variance = torch.where(last, model_log_variance, process.log_variance(None, t, s))
    kl = normal_kl(true_mean, true_log_variance, model_mean, model_log_variance)
    nll = -discretized_gaussian_log_likelihood(x0, model_mean, model_log_variance)
    return torch.where(last, nll, kl).flatten(1).mean(dim=1) / math.log(2)


def prior_term(process: Process, x0: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_t | x_0) || noise) at the first time t, (batch,), in bits per dimension, (batch,)."""
    ratio = column(process.alpha(t) / process.sigma(t))
    return ((ratio * x0) ** 2 / 2).flatten(1).mean(dim=1) / math.log(2)


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL of one normal distribution to another, in nats, elementwise."""
    difference = log_variance - other_log_variance
    return 0.5 * (difference.exp() - 1 - difference + (mean - other_mean) ** 2 * (-other_log_variance).exp())


def discretized_gaussian_log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ln of a normal distribution's mass in the bin of each value of `x0`, in 256 levels (DDPM, equation 13)."""
    scale = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr((x0 + BIN / 2 - mean) * scale)
    lower = torch.special.ndtr((x0 - BIN / 2 - mean) * scale)
    upper = torch.where(x0 > 1 - BIN / 4, 1.0, upper)  # the outer bins reach to infinity
    lower = torch.where(x0 < -1 + BIN / 4, 0.0, lower)
    return (upper - lower).clamp(min=1e-12).log()

"""The variational bound on the likelihood, term by term, in bits per dimension (DDPM, equation 5; IDDPM, section 3)."""

import math

import torch
from torch import Tensor

from foodgen.core.types import Prediction
from foodgen.diffusion.process import Process, column

BIN = 2 / 255  # width of one of the 256 values between -1 and 1


def bound_term(process: Process, clean: Tensor, x: Tensor, t: Tensor, s: Tensor, prediction: Prediction) -> Tensor:
    """One term of the bound, (batch,) bits per dimension: KL(q(x_s | x_t, clean) || p(x_s | x_t)).

    Where s is the clean end it is -log2 p(clean | x_t) of images in 256 levels instead.
    """
    guess, _ = process.bridge(x, prediction.clean, t, s)
    ours = process.log_variance(prediction.variance_share, t, s)
    truth, _ = process.bridge(x, clean, t, s)
    last = column(process.sigma(s) == 0)
    theirs = torch.where(last, ours, process.log_variance(None, t, s))
    divergence = normal_divergence(truth, theirs, guess, ours)
    surprise = -discretised_log_likelihood(clean, guess, ours)
    return torch.where(last, surprise, divergence).flatten(1).mean(dim=1) / math.log(2)


def prior_term(process: Process, clean: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_t | clean) || noise alone) at the first time, (batch,), of a grid, (batch,) bits per dimension."""
    share = column(process.alpha(t) / process.sigma(t))
    return ((share * clean) ** 2 / 2).flatten(1).mean(dim=1) / math.log(2)


def normal_divergence(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL of one normal distribution to another, in nats, elementwise."""
    difference = log_variance - other_log_variance
    return 0.5 * (difference.exp() - 1 - difference + (mean - other_mean) ** 2 * (-other_log_variance).exp())


def discretised_log_likelihood(clean: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ln of a normal distribution's mass in the bin of each value of `clean`, in 256 levels (DDPM, equation 13)."""
    scale = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr((clean + BIN / 2 - mean) * scale)
    lower = torch.special.ndtr((clean - BIN / 2 - mean) * scale)
    upper = torch.where(clean > 1 - BIN / 4, 1.0, upper)  # the outer bins reach to infinity
    lower = torch.where(clean < -1 + BIN / 4, 0.0, lower)
    return (upper - lower).clamp(min=1e-12).log()

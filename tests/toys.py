"""Denoisers and classifiers whose right answers are known."""

from foodgen.core.networks import Denoiser, NoiseLevelClassifier


class ToyDenoiser(Denoiser):
    """A denoiser that samplers and guidance can ask, and trainings cannot: it has no network."""

    uncertainty = None
    alignment = 0
    null_label = 0
    noise_shape = (1, 1, 1)

    def _none(self, *arguments):
        raise NotImplementedError

    outputs = outputs_and_features = prediction = target = log_loss = vlb_term = prior_term = _none


class ToyClassifier(NoiseLevelClassifier):
    """A classifier of noisy images."""

    def training_logits(self, images):
        raise NotImplementedError

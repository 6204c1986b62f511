"""Adversarial training (Goodfellow 2014): a discriminator against the generator, `model`."""

from collections import deque
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foodgen.core.errors import UserError
from foodgen.core.randomness import normal_like
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Generator, Objective, Phase
from foodgen.objectives.augmentation import Augmentation, NoAugment
from foodgen.objectives.gan_losses import Loss
from foodgen.objectives.penalties import Penalty, PenaltyInputs

# what a phase logs beside its penalties
LOGGED = {"loss", "real_logit", "fake_logit", "real_std", "fake_std", "augment_probability", "gradient_norm"}


class Fakes(NamedTuple):
    """Generated images, (batch, channels, size, size), and how much paired penalties weigh each, (batch,)."""

    images: Tensor
    pair_weights: Tensor | None = None


@objectives.add_to_registry(name="adversarial")
class Adversarial(Objective):
    """A GAN.

    model                a generator
    discriminator        (images, labels) to logits, (batch,) or (batch, logits); high means real
    loss                 of generator and discriminator
    penalties            by label; each is added to the loss of its network every `interval` steps
    augmentation         applied to all images that the discriminator sees
    discriminator_steps  per generator step; each uses its own share of the batch, as does the generator
    share_fakes          reuse the images of the first discriminator phase in the generator phase, which saves a second
                         forward pass; with train.grad_accumulation the graphs of all pieces stay in memory

    Fakes are generated with the labels of the real images of the batch.
    """

    model: Any
    model_type: type[nn.Module] = Generator
    paired = False  # whether a generated image has a real one that it is to look like

    def __init__(
        self,
        model: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: dict[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        discriminator_steps: int = 1,
        share_fakes: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, self.model_type):
            raise ValueError(f"model: {type(model).__name__} is no {self.model_type.__name__}")
        if isinstance(discriminator, Generator):
            raise ValueError(f"discriminator: {type(discriminator).__name__} is a generator")
        for label, penalty in (penalties or {}).items():
            if penalty.paired and not self.paired:
                raise ValueError(f"penalties.{label}: compares a generated image with its real one; these have none")
            if not issubclass(self.model_type, penalty.model_type):
                raise ValueError(f"penalties.{label}: needs a {penalty.model_type.__name__}")
            if label in LOGGED or hasattr(nn.ModuleDict, label):
                raise ValueError(f"penalties: '{label}' is the name of something else; choose another label")
        if discriminator_steps < 1:
            raise ValueError(f"discriminator_steps: {discriminator_steps} is not at least 1")
        self.model = model
        self.discriminator, self.loss = discriminator, loss
        self.penalties = penalties or {}
        self.penalty_modules = nn.ModuleDict(self.penalties)  # their buffers are checkpointed
        self.augmentation = augmentation or NoAugment()
        self.discriminator_steps, self.share_fakes = discriminator_steps, share_fakes
        self.shared: deque[Fakes] = deque()  # with their graph, one for each piece of the batch

    def phases(self, step: int) -> list[Phase]:
        self.shared.clear()
        due = {name: penalty for name, penalty in self.penalties.items() if step % penalty.interval == 0}
        of_discriminator, of_generator = (
            {name: penalty for name, penalty in due.items() if penalty.network == network}
            for network in ("discriminator", "model")
        )
        phases = []
        for index in range(self.discriminator_steps):
            loss = partial(self.discriminator_loss, index, of_discriminator)
            phases.append(Phase("discriminator", loss, double_backward=bool(of_discriminator)))
        loss = partial(self.generator_loss, of_generator)
        return [*phases, Phase("model", loss, double_backward=bool(of_generator))]

    def discriminator_loss(self, index: int, penalties: dict[str, Penalty], batch: Batch) -> dict[str, Tensor]:
        """The loss of discriminator phase `index` of this step."""
        batch = self._part_of(batch, index)
        # generate
        if self.share_fakes and index == 0:
            fake = self._generate_shared(batch).images.detach()
        else:
            with torch.no_grad():
                fake = self._generate(batch).images
        # discriminate
        real, fake = self.augmentation(batch.images), self.augmentation(fake)
        real_logits = self.discriminator(real, batch.labels).float()
        fake_logits = self.discriminator(fake, batch.labels).float()
        self.augmentation.observe(real_logits)
        # sum up
        loss = self.loss.discriminator(real_logits, fake_logits)
        inputs = PenaltyInputs(self.model, self.discriminator, real, fake, batch.labels)
        return self._with_penalties(loss, penalties, inputs) | {
            "real_logit": real_logits.mean(),
            "fake_logit": fake_logits.mean(),
            "real_std": batch.images.std(dim=0).mean(),
            "augment_probability": self.augmentation.probability,
        }

    def generator_loss(self, penalties: dict[str, Penalty], batch: Batch) -> dict[str, Tensor]:
        """The loss of the generator phase."""
        batch = self._part_of(batch, 0)
        fake, pair_weights = self.shared.popleft() if self.share_fakes else self._generate(batch)
        logits = self.discriminator(self.augmentation(fake), batch.labels).float()

        def real_logits() -> Tensor:
            with torch.no_grad():
                return self.discriminator(self.augmentation(batch.images), batch.labels).float()

        loss = self.loss.generator(logits, real_logits)
        inputs = PenaltyInputs(self.model, self.discriminator, batch.images, fake, batch.labels, pair_weights)
        return self._with_penalties(loss, penalties, inputs) | {
            "fake_logit": logits.mean(),
            "fake_std": fake.detach().std(dim=0).mean(),
        }

    def _part_of(self, batch: Batch, index: int) -> Batch:
        """The share of the batch that belongs to discriminator phase `index`."""
        if len(batch.images) < 2 * self.discriminator_steps:
            raise UserError(
                f"data.train_batch_size: {len(batch.images)} images (of one process and piece) are too few for "
                f"objective.discriminator_steps={self.discriminator_steps}, which takes at least two images each"
            )
        size = len(batch.images) // self.discriminator_steps
        chosen = slice(index * size, (index + 1) * size)
        return Batch(batch.images[chosen], batch.labels[chosen])

    def _generate(self, batch: Batch) -> Fakes:
        noise = normal_like(batch.images.new_empty(len(batch.images), *self.model.noise_shape))
        return Fakes(self.model(noise, batch.labels).float())

    def _generate_shared(self, batch: Batch) -> Fakes:
        """Generate with a graph, through which the generator phase backpropagates: its weights are frozen now."""
        frozen = [weight for weight in self.model.parameters() if not weight.requires_grad]
        for weight in frozen:
            weight.requires_grad_(True)
        self.shared.append(self._generate(batch))
        for weight in frozen:
            weight.requires_grad_(False)
        return self.shared[-1]

    @staticmethod
    def _with_penalties(loss: Tensor, penalties: dict[str, Penalty], inputs: PenaltyInputs) -> dict[str, Tensor]:
        values = {name: penalty(inputs) for name, penalty in penalties.items()}
        for name, value in values.items():
            loss = loss + penalties[name].weight * penalties[name].interval * value
        return {"loss": loss, **values}

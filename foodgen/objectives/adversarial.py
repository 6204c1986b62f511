"""Adversarial training (Goodfellow 2014): a discriminator and the generator, `model`, take turns."""

from collections import deque
from functools import partial

import torch
from torch import Tensor, nn

from foodgen.core.errors import UserError
from foodgen.core.randomness import normal_like
from foodgen.core.registry import objectives
from foodgen.core.types import Batch, Generator, Objective, Turn
from foodgen.objectives.disturbances import Disturbance, Undisturbed
from foodgen.objectives.gan_losses import Loss
from foodgen.objectives.penalties import Penalty, Scene

# what a turn tells beside its penalties
MEASURED = {"loss", "real_logit", "fake_logit", "real_deviation", "fake_deviation", "disturbance", "gradient_norm"}


@objectives.add_to_registry(name="adversarial")
class Adversarial(Objective):
    """A GAN.

    model                a generator
    discriminator        (images, labels) to logits, (batch,) or (batch, heads); high means real
    loss                 what both minimise
    penalties            by label; each joins its player's turn when due
    disturbance          changes all images before the discriminator sees them
    discriminator_turns  a generator turn; each takes its own share of the batch, as does the generator
    share_fakes          whether the generator's turn takes the images that the discriminator's first turn has judged,
                         which saves generating twice; with train.accumulate all pieces of a step stay in memory

    Fakes are asked for with the labels of the real images beside them.
    """

    def __init__(
        self,
        model: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: dict[str, Penalty] | None = None,
        disturbance: Disturbance | None = None,
        discriminator_turns: int = 1,
        share_fakes: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, Generator):
            raise ValueError(f"model: a generator is wanted; {type(model).__name__} is none")
        if isinstance(discriminator, Generator):
            raise ValueError(f"discriminator: {type(discriminator).__name__} is a generator")
        for label in penalties or {}:
            if label in MEASURED or hasattr(nn.ModuleDict, label):
                raise ValueError(f"penalties: '{label}' stands for something else; choose another label")
        if discriminator_turns < 1:
            raise ValueError(f"discriminator_turns: {discriminator_turns} is not at least 1")
        self.model: Generator = model
        self.discriminator, self.loss = discriminator, loss
        self.penalties = penalties or {}
        self.kept = nn.ModuleDict(self.penalties)  # what they remember is checkpointed
        self.disturbance = disturbance or Undisturbed()
        self.discriminator_turns, self.share_fakes = discriminator_turns, share_fakes
        self.shared: deque[Tensor] = deque()  # images with their graph, one for each piece of the batch

    def turns(self, step: int) -> list[Turn]:
        due = {name: penalty for name, penalty in self.penalties.items() if step % penalty.every == 0}
        mine = {
            player: {name: penalty for name, penalty in due.items() if penalty.player == player}
            for player in ("discriminator", "model")
        }
        self.shared.clear()
        judging = [
            Turn("discriminator", partial(self.judge, number, mine["discriminator"]), bool(mine["discriminator"]))
            for number in range(self.discriminator_turns)
        ]
        return [*judging, Turn("model", partial(self.deceive, mine["model"]), bool(mine["model"]))]

    def judge(self, number: int, penalties: dict[str, Penalty], batch: Batch) -> dict[str, Tensor]:
        """The discriminator's loss in its turn `number`."""
        batch = self._share(batch, number)
        if self.share_fakes and number == 0:
            fake = self._generate_for_both(batch).detach()
        else:
            with torch.no_grad():
                fake = self._generate(batch)
        real, fake = self.disturbance(batch.images), self.disturbance(fake)
        real_logits = self.discriminator(real, batch.labels).float()
        fake_logits = self.discriminator(fake, batch.labels).float()
        self.disturbance.observe(real_logits)
        measured = {
            "real_logit": real_logits.mean(),
            "fake_logit": fake_logits.mean(),
            "real_deviation": batch.images.std(dim=0).mean(),
            "disturbance": self.disturbance.probability,
        }
        loss = self.loss.discriminator(real_logits, fake_logits)
        scene = Scene(self.model, self.discriminator, real, fake, batch.labels)
        return self._with_penalties(loss, penalties, scene) | measured

    def deceive(self, penalties: dict[str, Penalty], batch: Batch) -> dict[str, Tensor]:
        """The generator's loss."""
        batch = self._share(batch, 0)
        fake = self.shared.popleft() if self.share_fakes else self._generate(batch)
        logits = self.discriminator(self.disturbance(fake), batch.labels).float()

        def real() -> Tensor:
            with torch.no_grad():
                return self.discriminator(self.disturbance(batch.images), batch.labels).float()

        measured = {"fake_logit": logits.mean(), "fake_deviation": fake.detach().std(dim=0).mean()}
        scene = Scene(self.model, self.discriminator, batch.images, fake, batch.labels)
        return self._with_penalties(self.loss.generator(logits, real), penalties, scene) | measured

    def _share(self, batch: Batch, number: int) -> Batch:
        if len(batch.images) < 2 * self.discriminator_turns:
            raise UserError(
                f"data.train_batch_size: {len(batch.images)} images (of one process and piece) are too few for "
                f"objective.discriminator_turns={self.discriminator_turns}, two images each at least"
            )
        size = len(batch.images) // self.discriminator_turns
        chosen = slice(number * size, (number + 1) * size)
        return Batch(batch.images[chosen], batch.labels[chosen])

    def _generate(self, batch: Batch) -> Tensor:
        noise = normal_like(batch.images.new_empty(len(batch.images), *self.model.noise_shape))
        images: Tensor = self.model(noise, batch.labels)
        return images.float()

    def _generate_for_both(self, batch: Batch) -> Tensor:
        """Images that the generator's turn will take as well: its weights are watched, though it is not its turn."""
        weights = [weight for weight in self.model.parameters() if not weight.requires_grad]
        for weight in weights:
            weight.requires_grad_(True)
        self.shared.append(self._generate(batch))
        for weight in weights:
            weight.requires_grad_(False)
        return self.shared[-1]

    @staticmethod
    def _with_penalties(loss: Tensor, penalties: dict[str, Penalty], scene: Scene) -> dict[str, Tensor]:
        sizes = {name: penalty(scene) for name, penalty in penalties.items()}
        for name, size in sizes.items():
            loss = loss + penalties[name].weight * penalties[name].every * size
        return {"loss": loss, **sizes}

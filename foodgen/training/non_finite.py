"""A training that is stuck: losses or gradients are not finite, step after step."""

from pathlib import Path

import torch
from torch import Tensor

from foodgen.core.errors import UserError


class NonFiniteError(UserError):
    """More steps in a row were skipped than may be.

    step            the last of them
    seed            of its randomness
    images, labels  its batch: uint8, (batch, 3, size, size), and (batch,)
    """

    def __init__(self, step: int, seed: int, images: Tensor, labels: Tensor) -> None:
        super().__init__(f"step {step}: the loss or gradients are not finite")
        self.step, self.seed, self.images, self.labels = step, seed, images, labels

    def keep_batch(self, folder: Path) -> str:
        """Write the batch to a file of `folder`, for `torch.load`; a sentence's end that says where, or why not."""
        path = folder / f"non-finite-step-{self.step:08d}.pt"
        content = {"images": self.images.cpu(), "labels": self.labels.cpu(), "step": self.step, "seed": self.seed}
        try:
            torch.save(content, path)
        except (OSError, RuntimeError) as error:
            return f"its batch could not be written ({error})"
        return f"its batch is {path}"

"""Loss scaling, without which gradients are too small for fp16 (Micikevicius 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class LossScaler:
    """torch's gradient scaler for one network's optimizers, with a count of the steps it left out.

    device   type of the device, such as "cuda"
    enabled  a scaler that is not does nothing
    """

    def __init__(self, device: str = "cpu", enabled: bool = False) -> None:
        self.scaler = torch.amp.GradScaler(device, enabled=enabled)
        self.skipped = 0

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return self.scaler.scale(loss)

    def unscale(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Divide the gradients by the scale, before they are clipped."""
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def step(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """Update the weights unless a gradient is not finite, which lowers the scale; whether they were updated."""
        before = self.scaler.get_scale()
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        updated = self.scaler.get_scale() >= before
        self.skipped += not updated
        return updated

    def numbers(self) -> dict[str, float]:
        """The scale and the steps left out so far; nothing where not enabled."""
        if not self.scaler.is_enabled():
            return {}
        return {"loss_scale": self.scaler.get_scale(), "skipped_steps": float(self.skipped)}

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the scale of an earlier run, if it had one."""
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
            self.skipped = state["skipped"]

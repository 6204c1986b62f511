"""Steps that are skipped because a gradient is not finite, and loss scaling for fp16 (Micikevicius 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class LossScaler:
    """Steps one network's optimizers unless its gradients are not finite; counts what was skipped.

    device   type of the device, such as "cuda"
    enabled  whether losses are scaled, without which gradients are too small for fp16

    `skipped` counts all skipped steps, `in_a_row` those since the last that was taken: tensors of the device, so that
    counting does not wait for it.
    """

    def __init__(self, device: str = "cpu", enabled: bool = False) -> None:
        self.scaler = torch.amp.GradScaler(device, enabled=enabled)
        self.skipped = torch.zeros((), dtype=torch.long)
        self.in_a_row = torch.zeros((), dtype=torch.long)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale. One that is not finite makes its gradients so, on all processes that share them."""
        return self.scaler.scale(loss * (1 + 0 * loss.detach()))

    def unscale(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Divide the gradients by the scale, before they are clipped."""
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def step(self, optimizers: Sequence[torch.optim.Optimizer], finite: Tensor) -> Tensor:
        """Update the weights if `finite`, (), is true; whether they were updated, ()."""
        if self.scaler.is_enabled():
            finite = torch.tensor(self._scaled_step(optimizers), device=finite.device)
        else:
            for optimizer in optimizers:
                if getattr(optimizer, "_step_supports_amp_scaling", False):  # a fused one looks at it on the device
                    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
                    optimizer.step()
                elif finite.is_meta or finite:
                    optimizer.step()
        self.skipped = self.skipped.to(finite.device) + ~finite
        self.in_a_row = torch.where(finite, 0, self.in_a_row.to(finite.device) + 1)
        return finite

    def _scaled_step(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """A step of torch's scaler, which lowers the scale if it skips."""
        before = self.scaler.get_scale()
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def numbers(self) -> dict[str, float]:
        """The steps skipped so far, if any, and the scale, if there is one."""
        skipped = float(self.skipped)
        if self.scaler.is_enabled():
            return {"loss_scale": self.scaler.get_scale(), "skipped_steps": skipped}
        return {"skipped_steps": skipped} if skipped else {}

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict(), "skipped": int(self.skipped), "in_a_row": int(self.in_a_row)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the counts of an earlier run, and its scale if it had one."""
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.skipped = torch.tensor(state.get("skipped", 0))
        self.in_a_row = torch.tensor(state.get("in_a_row", 0))

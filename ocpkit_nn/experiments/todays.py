"""Today's optimisers, to compare the feedback with: a cosine schedule for any of torch's, and Muon beside AdamW."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit.errors import ProblemError
from ocpkit_nn.layers.losses import Loss


def cosine(optimizer: torch.optim.Optimizer, updates: int) -> None:
    """Let the learning rate fall from lr to zero by half a cosine within so many updates (Loshchilov & Hutter 2017)."""
    start, done = [group["lr"] for group in optimizer.param_groups], 0

    def set_rate(*_: Any) -> None:
        nonlocal done
        for group, lr in zip(optimizer.param_groups, start):
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done / updates)))
        done += 1

    optimizer.register_step_pre_hook(set_rate)


class Muon:
    """Muon for the hidden layers, AdamW for the first and last one and for what is no matrix (Jordan et al. 2024).

    Muon's step is scaled to the length that AdamW's has, so that both have one learning rate (Liu et al. 2025,
    arXiv:2502.16982). torch's Muon takes matrices alone: a convolution's kernel is shown to it as one, (o, i·k·k).

    Parameters
    ----------
    model, loss
        What is trained.
    lr
        Learning rate of both.

    Raises
    ------
    ProblemError
        If torch is older than Muon.
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ProblemError(f"Muon came with torch 2.9; this is {torch.__version__}: pip install -U torch")
        self.model, self.loss = model, loss
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
        self._hidden = [(m.weight, nn.Parameter(m.weight.detach().flatten(1))) for m in layers[1:-1]]
        taken = {id(weight) for weight, _ in self._hidden}
        rest = [p for p in model.parameters() if id(p) not in taken]
        self._optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr)]
        if self._hidden:
            matrices = [matrix for _, matrix in self._hidden]
            self._optimizers.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train on one mini-batch and return its mean loss before the step."""
        self.model.zero_grad()
        mean_loss = self.loss.value(self.model(inputs), targets).mean()
        mean_loss.backward()  # type: ignore[no-untyped-call]
        for weight, matrix in self._hidden:
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for optimizer in self._optimizers:
            optimizer.step()
        return float(mean_loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimisers."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self._optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        for optimizer, state in zip(self._optimizers, state_dict["optimizers"]):
            optimizer.load_state_dict(state)

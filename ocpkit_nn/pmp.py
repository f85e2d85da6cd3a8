"""Pontryagin's methods as training optimisers: MSA and E-MSA (Li et al. 2017; Eq. 19-24) on a batch.

Stage t's Hamiltonian is the batch mean of p_{t+1}ᵀ f_t(x_t, u) + ½ λ ‖u‖². E-MSA adds ½ρ‖x_{t+1} − f_t(x_t, u)‖² and
½ρ‖p_t − ∇_x H‖² per sample and minimises with L-BFGS at every layer and iteration, through the same
`minimise_control` as the control solvers. MSA takes a gradient step on H, which is SGD (Lemma 5, Eq. 22).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit.solvers.pmp import Objective, minimise_control
from ocpkit_nn.losses import CrossEntropy, Loss
from ocpkit_nn.optim import DDPNOpt
from ocpkit_nn.stages import Stage, as_stages


class MSA(DDPNOpt):
    """The method of successive approximations with a gradient step on the Hamiltonian; equal to SGD.

    Parameters
    ----------
    model, loss, lr
        As in `DDPNOpt`.
    momentum, weight_decay
        As in SGD.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[nn.Module],
        loss: Loss | None = None,
        lr: float = 0.1,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            model, loss, lr, curvature="identity", feedback="none", momentum=momentum, weight_decay=weight_decay
        )


class EMSA(torch.optim.Optimizer):
    """The extended method of successive approximations.

    Parameters
    ----------
    model, loss
        As in `DDPNOpt`.
    penalty
        ρ of both feasibility terms.
    stage_iterations
        L-BFGS iterations per layer and step.
    weight_decay
        λ of the running cost.
    squared
        True: squared norms (Li et al.); False: the norms as printed in Eq. 23.

    Raises
    ------
    ValueError
        If the penalty is not positive.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[nn.Module],
        loss: Loss | None = None,
        *,
        penalty: float = 1.0,
        stage_iterations: int = 10,
        weight_decay: float = 0.0,
        squared: bool = True,
    ) -> None:
        if not penalty > 0 or stage_iterations < 1:
            raise ValueError(
                f"penalty must be positive and stage_iterations at least 1, got {penalty}, {stage_iterations}"
            )
        model = model if isinstance(model, nn.Module) else list(model)
        self.preparation, self.stages = as_stages(model)
        self.loss = CrossEntropy() if loss is None else loss
        self.squared = squared
        defaults: dict[str, Any] = {
            "penalty": penalty,
            "weight_decay": weight_decay,
            "stage_iterations": stage_iterations,
        }
        super().__init__([p for stage in self.stages for p in stage.layer.parameters], defaults)

    def step(self, inputs: Tensor, targets: Tensor) -> float:  # type: ignore[override]
        """Train on one mini-batch; return its mean loss before the step."""
        x, states = inputs, []
        with torch.no_grad():
            for module in self.preparation:
                x = module(x)
        for stage in self.stages:
            states.append(x.detach().requires_grad_())
            x = _apply(stage, states[-1])
        states.append(x.detach())
        value = float(self.loss.value(states[-1], targets).mean())
        costates = self._adjoint(states, targets)
        new = [self._minimise(t, states, costates) for t in range(len(self.stages))]
        with torch.no_grad():
            for stage, control in zip(self.stages, new):
                _write(stage, control)
        return value

    def _adjoint(self, states: list[Tensor], targets: Tensor) -> list[Tensor]:
        """p_T = ∇φ, p_t = ∇_x H (Eq. 19b), per sample."""
        costate = self.loss.gradient(states[-1], targets)
        costates = [costate]
        for t in reversed(range(len(self.stages))):
            output = _apply(self.stages[t], states[t])
            costate = torch.autograd.grad(output, states[t], costate)[0]
            costates.append(costate)
        return costates[::-1]

    def _minimise(self, t: int, states: list[Tensor], costates: list[Tensor]) -> Tensor:
        """Eq. 24 at one layer."""
        stage, options = self.stages[t], self.param_groups[0]
        parameters = stage.layer.parameters
        start = torch.cat([p.detach().flatten() for p in parameters])
        objective = _augmented_hamiltonian(
            stage, states[t], states[t + 1], costates[t], costates[t + 1], options, self.squared
        )
        free = np.full(len(start), np.inf)
        x0 = start.double().cpu().numpy()
        found = minimise_control(objective, x0, -free, free, options["stage_iterations"])
        _write(stage, start)
        return torch.as_tensor(found, dtype=start.dtype, device=start.device)


def _augmented_hamiltonian(
    stage: Stage,
    x: Tensor,
    following: Tensor,
    costate: Tensor,
    next_costate: Tensor,
    options: dict[str, Any],
    squared: bool,
) -> Objective:
    """Eq. 23, averaged over the batch, as a function of the flat control."""
    parameters, rho, decay = stage.layer.parameters, options["penalty"], options["weight_decay"]

    def penalty(error: Tensor) -> Tensor:
        squares = error.flatten(1).square().sum(1)
        return 0.5 * rho * (squares if squared else (squares + 1e-24).sqrt()).mean()

    def objective(control: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        with torch.no_grad():
            _write(stage, torch.as_tensor(control, dtype=x.dtype, device=x.device))
        y = _apply(stage, x)
        hamiltonian = (next_costate * y).flatten(1).sum(1)
        adjoint = torch.autograd.grad(hamiltonian.sum(), x, create_graph=True)[0]
        value = hamiltonian.mean() + penalty(following - y) + penalty(costate - adjoint)
        if decay:
            value = value + 0.5 * decay * sum(p.square().sum() for p in parameters)
        gradient = torch.autograd.grad(value, parameters)
        flat = torch.cat([g.flatten() for g in gradient]).double().cpu().numpy()
        return float(value.detach()), flat

    return objective


def _apply(stage: Stage, x: Tensor) -> Tensor:
    """f_t with autograd through states and controls."""
    with torch.enable_grad():
        y: Tensor = stage.layer.module(x)
        for module in stage.tail:
            y = module(y)
    return y


def _write(stage: Stage, control: Tensor) -> None:
    """Copy a flat control into the layer's parameters."""
    pieces = control.split([p.numel() for p in stage.layer.parameters])
    with torch.no_grad():
        for parameter, piece in zip(stage.layer.parameters, pieces):
            parameter.copy_(piece.reshape(parameter.shape))

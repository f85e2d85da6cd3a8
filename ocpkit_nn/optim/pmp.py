"""Pontryagin's principle as a training optimizer: E-MSA (Li et al. 2017; Eq. 19-24) on a batch.

Stage t's Hamiltonian is the batch mean of p_{t+1}ᵀ f_t(x_t, u) + ½ λ ‖u‖². E-MSA adds ½ρ‖x_{t+1} − f_t(x_t, u)‖² and
½ρ‖p_t − ∇_x H‖² per sample and minimizes with L-BFGS at every layer and iteration: torch's, whose vectors stay on
the network's device and in its precision, where the control solvers' SciPy needs them in double precision and
took ten times as long. MSA with a gradient step on H is SGD (Lemma 5, Eq. 22), which torch has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.stages import Stage
from ocpkit_nn.layers.torch_losses import as_loss
from ocpkit_nn.optim.stage_optimizer import StageOptimizer, changes_weights, hamiltonian


class EMSA(StageOptimizer):
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
    FloatingPointError
        In `step`, if a minimization leaves the finite numbers; the layer then keeps its control.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[nn.Module],
        loss: Loss | nn.Module | None = None,
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
        self.loss = as_loss(loss)
        self.squared = squared
        defaults: dict[str, Any] = {
            "penalty": penalty,
            "weight_decay": weight_decay,
            "stage_iterations": stage_iterations,
        }
        super().__init__(self._attach(model), defaults)

    @changes_weights
    def step(self, inputs: Tensor, targets: Tensor) -> float:  # type: ignore[override]
        """Train on one mini-batch; return its mean loss before the step."""
        self._begin_step()
        states, outputs = self._differentiable_trajectory(inputs)
        states.append(outputs[-1].detach())
        del outputs
        value = float(self.loss.value(states[-1], targets).mean())
        costates = self._adjoint(states, targets)
        for t in range(len(self.stages)):
            self._minimize(t, states, costates)
        return value

    def _adjoint(self, states: list[Tensor], targets: Tensor) -> list[Tensor]:
        """p_T = ∇φ, p_t = ∇_x H (Eq. 19b), per sample."""
        costate = self.loss.gradient(states[-1], targets)
        costates = [costate]
        for t in reversed(range(len(self.stages))):
            if states[t].requires_grad:
                output = self.stages[t].differentiable(states[t], replay=True)
                costate = torch.autograd.grad(hamiltonian(costate, output).sum(), states[t])[0]
            costates.append(costate)
        return costates[::-1]

    def _minimize(self, t: int, states: list[Tensor], costates: list[Tensor]) -> None:
        """Eq. 24 at one layer: its augmented Hamiltonian depends on no other layer's control."""
        stage, options = self.stages[t], self._groups[t]
        parameters = stage.layer.parameters
        start = [p.detach().clone() for p in parameters]
        augmented = _augmented_hamiltonian(
            stage, states[t], states[t + 1], costates[t], costates[t + 1], options, self.squared
        )
        solver = torch.optim.LBFGS(
            parameters,
            max_iter=options["stage_iterations"],
            tolerance_grad=torch.finfo(start[0].dtype).eps,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def value_and_gradient() -> Tensor:
            value = augmented()
            for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters, materialize_grads=True)):
                parameter.grad = gradient.contiguous()  # a convolution's may not be, and LBFGS requires it
            return value.detach()

        solver.step(value_and_gradient)
        for parameter in parameters:
            parameter.grad = None
        if not all(parameter.isfinite().all() for parameter in parameters):
            with torch.no_grad():
                torch._foreach_copy_(parameters, start)
            raise FloatingPointError(
                f"stage {stage.name}: the minimization of the Hamiltonian left the finite numbers: change penalty"
            )


def _augmented_hamiltonian(
    stage: Stage,
    x: Tensor,
    following: Tensor,
    costate: Tensor,
    next_costate: Tensor,
    options: dict[str, Any],
    squared: bool,
) -> Callable[[], Tensor]:
    """Eq. 23, averaged over the batch, as a function of the layer's parameters as they are."""
    parameters, rho, decay = stage.layer.parameters, options["penalty"], options["weight_decay"]

    def penalty(error: Tensor) -> Tensor:
        squares = error.flatten(1).square().sum(1)
        return 0.5 * rho * (squares if squared else (squares + 1e-24).sqrt()).mean()

    def value() -> Tensor:
        y = stage.differentiable(x, replay=True)
        H = hamiltonian(next_costate, y)
        total = H.mean() + penalty(following - y)
        if x.requires_grad:
            total = total + penalty(costate - torch.autograd.grad(H.sum(), x, create_graph=True)[0])
        if decay:
            total = total + 0.5 * decay * torch.stack([p.square().sum() for p in parameters]).sum()
        return total

    return value

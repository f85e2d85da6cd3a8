"""DDPNOpt (Alg. 3 of Liu, Chen & Theodorou 2021) with the face of a `torch.optim.Optimizer`.

One step is one iteration of differential dynamic programming on a mini-batch: B trajectories that share each
layer's control. The backward pass is the core's (`ocpkit.recursion.bellman.backward_pass`) with V_xx^i kept as outer
products; the forward pass applies

    u ← u + k + (1/B) Σ_i K_i (x̂_i − x_i),     k = −η M⁻¹ E[Q_u],     K_i = −(Q_uu^i)⁻¹ Q_ux^i

along the new activations x̂. With Q_ux dropped it *is* the baseline whose M it borrows (Prop. 2). By default
Q_uu^i = M/η + f_uᵀ V_xx f_u: M/η is a proximal control cost, and Bellman's principle requires the second term,
without which the feedback is unbounded and training diverges at large learning rates. `options` chooses the pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit_nn.distributed import ALONE, Processes
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.lost_options import TrainingWarning, lost_options, warn_of_unread_options
from ocpkit_nn.layers.stages import Stage, without_autocast
from ocpkit_nn.layers.structure import check_no_backward_hooks
from ocpkit_nn.layers.torch_losses import as_loss
from ocpkit_nn.optim.finite import finite_mean, first_not_finite, refusal
from ocpkit_nn.optim.groups import RENAMED_INTERVAL, check_batch, check_limits, check_options, check_shared, renamed
from ocpkit_nn.optim.line_search import backtrack, running_cost
from ocpkit_nn.optim.memories import carry, check_form
from ocpkit_nn.optim.micro_batches import MicroBatchedStage
from ocpkit_nn.optim.options import FACTORED, CurvatureOptions, PolicyOptions, TerminalHessian
from ocpkit_nn.optim.stage_optimizer import StageOptimizer, changes_weights
from ocpkit_nn.optim.undo import Undo
from ocpkit_nn.passes import eigenbases
from ocpkit_nn.passes.backward_pass import Policy, TerminalValue, Trajectory
from ocpkit_nn.passes.baseline import Baseline
from ocpkit_nn.passes.gains import FeedbackGain
from ocpkit_nn.passes.moments import Memory
from ocpkit_nn.passes.rank_one import gradient_norm
from ocpkit_nn.passes.second_order import check_second_order
from ocpkit_nn.passes.workspace import Workspace


class DDPNOpt(StageOptimizer):
    """Differential dynamic programming as a training optimizer.

    Parameters
    ----------
    model
        An `nn.Sequential`, another module, or a list of blocks (see `stages.as_stages`), trained as each step finds it.
    loss
        A `losses.Loss`, whose mean over the batch is minimized, or a loss of `torch.nn`; by default cross-entropy.
    lr
        Learning rate η.
    curvature
        M: ``"identity"`` (SGD), ``"diagonal"`` (RMSprop), ``"adam"``, ``"kronecker"`` (KFAC), ``"ekfac"``,
        or ``"exact"``: E[Q_uu] + γ I, vanilla DDP.
    feedback
        ``"full"``: Alg. 3. ``"value"``: Q_ux in the backward recursion only, no second forward pass.
        ``"none"``: Q_ux ≡ 0, the baseline itself.
    terminal
        V_xx at the output: ``"empirical"`` ∇φ∇φᵀ (the paper's), ``"ggn"`` (exact, C columns), ``"montecarlo"`` (one
        unbiased random column) or ``"rank"`` (`rank` leading columns).
    control_hessian
        ``"proximal"``: Q_uu^i = M/η + f_uᵀ V_xx f_u. ``"literal"``: M/η, as printed.
    dynamics
        ``"first"``: layers are linearized (Eq. 12). ``"second"``: Eq. 26-27 (DDPNOpt2nd), for Linear layers.
    gains
        ``"exact"``: Alg. 3. ``"separable"``: q_uᵀ M⁻¹ q_u from a separable approximation of an earlier M, gradient and
        feedback in one product (see `separable`); for the element-wise curvatures, nearly at the baseline's price.
    curvature_scale
        Factor of the terminal Hessian of each sample; None is 1/B, its share of the batch's curvature.
    rank
        Columns for ``terminal="rank"``, which needs it; draws for ``"montecarlo"``, by default 1.
    tikhonov
        ε added to V_xx at every layer (Alg. 3, line 12), exactly: as many columns as the layer is wide.
    momentum
        Of ``"identity"`` and ``"diagonal"``, as in torch's SGD and RMSprop.
    decay
        Averaging of second moments; by default 0.99 for ``"diagonal"`` and 0.95 for Kronecker factors.
    betas, eps
        As in torch's Adam and RMSprop.
    damping
        γ added to Kronecker and exact curvature.
    eigenbasis_interval
        Steps that share the eigenvectors of the Kronecker factors. If several do, all layers' are renewed at once after
        the last of them, and `processes` divide the work.
    weight_decay
        λ of the running cost ℓ_t = ½ λ ‖u_t‖², added to E[Q_u] as torch does.
    max_grad_norm
        If given, a batch whose gradient norm is larger has its whole cost scaled down to that norm.
    line_search
        Halve α in u ← u + α k + E[K_i δx_i] until the loss of the batch with its `weight_decay` does not rise; if it
        still does at α = 2⁻¹⁰, nothing moves. One forward pass more per trial; a stage that draws at random (dropout)
        repeats its draw.
    micro_batch
        Samples that a layer sees at a time, at most: the same step with less memory inside the layers; states of the
        whole batch are kept. Micro-batches are as even as can be; batch norm measures each, as torch does when
        gradients are accumulated, and no single sample, which joins others.
    groups
        Parameter groups with options of their own, as in torch; the rest of the model uses the defaults.
    generator
        Source of randomness for ``terminal="montecarlo"``.
    processes
        That share each batch (see `distributed`): `step` gets this one's samples, and all take the same step. Not for
        ``curvature="exact"``, which needs all samples in one place.

    Raises
    ------
    ValueError
        For unknown names, options out of range, a loss without a value for each sample, or a model that is no chain of
        stages.

    Warns
    -----
    TrainingWarning
        If curvature or feedback have no effect on this model, also in the first `step` after a change of the model that
        takes it from them.

    Attributes
    ----------
    lost
        What the warning said of the model as it is, empty where nothing is lost.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[nn.Module],
        loss: Loss | nn.Module | None = None,
        lr: float = 1e-3,
        *,
        curvature: str = "diagonal",
        feedback: str = "full",
        terminal: str = "empirical",
        control_hessian: str = "proximal",
        dynamics: str = "first",
        curvature_scale: float | None = None,
        rank: int | None = None,
        tikhonov: float = 0.0,
        momentum: float = 0.0,
        decay: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        damping: float = 0.03,
        eigenbasis_interval: int = 1,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        line_search: bool = False,
        micro_batch: int | None = None,
        groups: list[dict[str, Any]] | None = None,
        gains: str = "exact",
        generator: torch.Generator | None = None,
        processes: Processes = ALONE,
        basis_every: int | None = None,
    ) -> None:
        if basis_every is not None:
            warnings.warn(RENAMED_INTERVAL, DeprecationWarning, stacklevel=2)
            eigenbasis_interval = basis_every
        options = CurvatureOptions(curvature, momentum, decay, betas, eps, damping, eigenbasis_interval)
        self.terminal = TerminalHessian(terminal, rank, curvature_scale, generator)
        self.policy = PolicyOptions(feedback, control_hessian, dynamics, tikhonov, gains, line_search)
        self.backward_pass = self.policy.backward_pass(curvature, self.terminal)
        check_limits(max_grad_norm, micro_batch)
        warn_of_unread_options(curvature, momentum, decay)
        self.loss, self.processes = as_loss(loss), processes
        check_shared(processes.count, curvature, self.loss, loss)
        self.curvature, self.max_grad_norm, self.micro_batch, self.lost = curvature, max_grad_norm, micro_batch, ""
        self._policies: list[Policy] = []
        named = [renamed(group, warn=True) for group in groups or []]
        super().__init__(self._attach(model, named), options.group(lr, weight_decay))
        self._begin_step()

    @property
    def feedback(self) -> str:
        """Use of Q_ux."""
        return self.policy.feedback

    @property
    def gains(self) -> str:
        """Kind of gains."""
        return self.policy.gains

    @property
    def generator(self) -> torch.Generator | None:
        """Source of randomness of the terminal Hessian."""
        return self.terminal.generator

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        param_group = renamed(param_group, warn=True)
        check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def _prepare_stages(self, before: list[Stage], after: list[Stage]) -> list[Stage]:
        check_no_backward_hooks(self.model)
        if self.policy.dynamics == "second":
            check_second_order(after)
        lost, before_that = lost_options([stage.layer for stage in after], self.curvature, self.feedback), self.lost
        self.lost = lost
        if lost and lost != before_that:
            warnings.warn(lost, TrainingWarning, stacklevel=5)
        if "state" in vars(self):
            old, new = ([stage.layer for stage in some] for some in (before, after))
            carry(self.state, old, new, lists=self.gains == "separable")
        self._workspaces = [Workspace() for _ in after]
        self._undo = Undo([self.model] if isinstance(self.model, nn.Module) else self.model)
        return after if self.micro_batch is None else [MicroBatchedStage(stage, self.micro_batch) for stage in after]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._policies = []

    @changes_weights
    @torch.no_grad()
    def step(self, inputs: Tensor, targets: Tensor) -> float:  # type: ignore[override]
        """Train on one mini-batch.

        Parameters
        ----------
        inputs
            x_0 (B, …).
        targets
            (B,), whatever the loss takes.

        Returns
        -------
        float
            Mean loss of the batch before the step.

        Raises
        ------
        ValueError
            At the first step, for a stage whose samples depend on each other; for targets that do not fit; and for an
            empty batch.
        FloatingPointError
            If a sample, its loss or a derivative is not finite.

        After these errors weights, moments and buffers are what they were.

        Notes
        -----
        Under `torch.autocast` the layers of both forward passes run in low precision, everything else in the
        parameters' own.
        """
        check_batch(inputs, targets)
        self._begin_step()
        self._policies = []  # the last step's vectors take as much memory as this one's
        self._values: Tensor | None = None
        self._undo.keep_buffers()
        try:
            return self._advance(inputs, targets)
        except BaseException as error:
            finite = self._undo.all_finite(moments=True)
            self._undo.restore()
            self._policies = []
            spoiled = not finite or any(first_not_finite(each) is not None for each in (inputs, self._values))
            if spoiled and isinstance(error, (RuntimeError, ValueError)):
                raise refusal(inputs, self._values) from error  # drawing from, or decomposing, what is not finite
            raise

    def _advance(self, inputs: Tensor, targets: Tensor) -> float:
        """Take the step and return the mean loss before it."""
        self._samples = self.processes.begin_batch(len(inputs), inputs.device)
        trajectory = self._simulate(inputs)
        states, outputs = trajectory.states, trajectory.outputs
        with without_autocast(outputs):
            self._values, gradient = self.loss.value_and_gradient(outputs, targets)
        regular = gradient.element_size() >= 4 and all([stage.is_regular for stage in self.stages])
        watched = [states[0], outputs, gradient] if regular else []
        loss, small = finite_mean(inputs, self._values, watched, self.processes)
        stays_finite = regular and small
        layers = [stage.layer for stage in self.stages]
        memories: list[Memory] = [self.state[layer.parameters[0]] for layer in layers]
        if self.policy.line_search or not stays_finite:
            self._undo.keep_controls([parameter for layer in layers for parameter in layer.parameters], memories)
        baseline = Baseline(self.curvature, layers, memories, self._groups)
        with without_autocast(outputs):
            terminal = self._terminal_value(trajectory, targets, gradient)
            self._policies = self._backward_pass(trajectory, terminal, baseline)
        if self.policy.line_search:
            self._search(trajectory, targets, loss)
        else:
            self._forward_pass(trajectory)
        if self.curvature in FACTORED:
            with without_autocast(outputs):
                eigenbases.renew(memories, self._groups, self.processes)
        if not stays_finite and not self._undo.all_finite(moments=self.curvature in FACTORED):
            raise refusal(inputs, self._values)
        return loss

    def _simulate(self, inputs: Tensor) -> Trajectory:
        """Nominal trajectory X_t of the batch (Alg. 3, line 5)."""
        x = self._prepared(inputs)
        states, linearizations = [], []
        for stage in self.stages:
            states.append(x)
            stage.adapt(x)
            x, linearization = stage.linearize(x)
            stage.check_samples_do_not_mix(states[-1], x)
            linearization.average = self.processes.average
            linearizations.append(linearization)
        return Trajectory(self.stages, linearizations, states, x, self._workspaces)

    def _terminal_value(self, trajectory: Trajectory, targets: Tensor, gradient: Tensor) -> TerminalValue:
        """Terminal value (line 6), of a cost scaled down where its gradient is too large."""
        clip = None
        if self.max_grad_norm is not None:  # zero where the norm overflows
            clip = min(1.0, self.max_grad_norm / (gradient_norm(trajectory.linearizations, gradient) + 1e-6))
        return self.terminal.value(self.loss, trajectory.outputs, targets, gradient, self._samples, clip)

    def _backward_pass(self, trajectory: Trajectory, terminal: TerminalValue, baseline: Baseline) -> list[Any]:
        """Backward Bellman pass (lines 7-13)."""
        return self.backward_pass(trajectory, terminal, baseline)

    def _forward_pass(self, trajectory: Trajectory, step_size: float = 1.0) -> Tensor:
        """Lines 14-18: u ← u + α k + E[K_i δx_i] along the new trajectory; without feedback no trajectory is needed.

        Returns the input of the last layer on the new trajectory, if there is one.
        """
        states, full = trajectory.states, self.feedback == "full"
        x, last = states[0], len(states) - 1
        if not full and not self.policy.line_search:
            with without_autocast(x):
                self.backward_pass.apply_feedforward(trajectory, self._policies, step_size)
            return x
        for t, (stage, policy) in enumerate(zip(self.stages, self._policies)):
            with without_autocast(x):
                policy.apply(stage.layer, x - states[t] if full and t > 0 else None, step_size)
            if t < last:
                x = stage.second_forward(x)
        return x

    def _search(self, trajectory: Trajectory, targets: Tensor, before: float) -> None:
        """Take the step at which the batch's total cost does not rise, if there is one."""

        def cost_after(step_size: float) -> float:
            outputs = self.stages[-1].second_forward(self._forward_pass(trajectory, step_size))
            with without_autocast(outputs):
                after = float(self.processes.average(self.loss.value_and_gradient(outputs, targets)[0].mean()))
            return after + running_cost(self.stages, self._groups)

        backtrack(cost_after, before + running_cost(self.stages, self._groups), self._undo.restore_parameters)

    def policies(self) -> list[FeedbackGain | None]:
        """Return the feedback gains of the last step, one per stage (None: no feedback, or stage 0, where δx = 0)."""
        return [policy.gain for policy in self._policies]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved; training then goes on bit for bit.

        Raises
        ------
        ValueError
            If the moments are kept in the form of the other kind of gains.
        """
        check_form(state_dict["state"].values(), self.gains)
        super().load_state_dict({**state_dict, "param_groups": [*map(renamed, state_dict["param_groups"])]})

"""DDPNOpt (Alg. 3 of Liu, Chen & Theodorou 2021) with the face of a `torch.optim.Optimizer`.

One step is one iteration of differential dynamic programming on a mini-batch: B trajectories that share each
layer's control. The backward pass is the core's (`ocpkit.recursion.bellman.backward_pass`) with V_xx^i kept as outer
products; the forward pass applies

    u ← u + k + (1/B) Σ_i K_i (x̂_i − x_i),     k = −η M⁻¹ E[Q_u],     K_i = −(Q_uu^i)⁻¹ Q_ux^i

along the new activations x̂. With Q_ux dropped it *is* the baseline whose M it borrows (Prop. 2). By default
Q_uu^i = M/η + f_uᵀ V_xx f_u: M/η is a proximal control cost, and Bellman's principle asks for the second term,
without which the feedback is unbounded and training diverges at large learning rates.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit.recursion.value import Value
from ocpkit_nn.distributed import ALONE, Processes
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.lost_options import TrainingWarning, lost_options, warn_of_unread_options
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearisation, Stage, without_autocast
from ocpkit_nn.layers.structure import check_no_backward_hooks
from ocpkit_nn.layers.torch_losses import as_loss
from ocpkit_nn.layers.vectors import ControlBase, StateBase
from ocpkit_nn.optim import fused
from ocpkit_nn.optim.finite import finite_mean, first_not_finite, refusal
from ocpkit_nn.optim.groups import check_batch, check_name, check_options, check_whole
from ocpkit_nn.optim.memories import carry
from ocpkit_nn.optim.micro_batches import MicroBatchedStage
from ocpkit_nn.optim.stage_optimizer import StageOptimizer, changes_weights
from ocpkit_nn.optim.undo import Undo
from ocpkit_nn.passes import eigenbases, separable
from ocpkit_nn.passes.curvature import RULES, LayerGradients, Memory
from ocpkit_nn.passes.dense import dense_pass
from ocpkit_nn.passes.factored import LayerPolicy, bellman_pass, parallel_pass
from ocpkit_nn.passes.gains import FeedbackGain
from ocpkit_nn.passes.second_order import check_second_order, second_order_pass
from ocpkit_nn.passes.separable import AimedGradient
from ocpkit_nn.passes.workspace import Workspace

FEEDBACK = ("full", "value", "none")
DYNAMICS = ("first", "second")
CONTROL_HESSIAN = ("proximal", "literal")
GAINS = ("exact", "separable")
TERMINAL = ("empirical", "ggn", "montecarlo", "rank")
DECAYS = {"diagonal": 0.99}
FACTORED = ("kronecker", "ekfac")
CYCLED = {"momentum": ("identity", "diagonal"), "betas": ("adam",)}
HALVINGS = 10  # of the step size, at most


class DDPNOpt(StageOptimizer):
    """Differential dynamic programming as a training optimiser.

    Parameters
    ----------
    model
        An `nn.Sequential`, another module, or a list of blocks (see `stages.as_stages`), trained as each step finds it.
    loss
        A `losses.Loss`, whose mean over the batch is minimised, or a loss of `torch.nn`; by default cross-entropy.
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
        ``"first"``: layers are linearised (Eq. 12). ``"second"``: Eq. 26-27 (DDPNOpt2nd), for Linear layers.
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
    basis_every
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
        basis_every: int = 1,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        line_search: bool = False,
        micro_batch: int | None = None,
        groups: list[dict[str, Any]] | None = None,
        gains: str = "exact",
        generator: torch.Generator | None = None,
        processes: Processes = ALONE,
    ) -> None:
        check_name("curvature", curvature, RULES)
        check_name("feedback", feedback, FEEDBACK)
        check_name("terminal curvature", terminal, TERMINAL)
        check_name("control Hessian", control_hessian, CONTROL_HESSIAN)
        check_name("order of the dynamics", dynamics, DYNAMICS)
        check_name("kind of gains", gains, GAINS)
        check_whole(terminal, rank, tikhonov, max_grad_norm, curvature_scale)
        warn_of_unread_options(curvature, momentum, decay)
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
        self.dynamics, self.micro_batch = dynamics, micro_batch
        self.loss = as_loss(loss)
        self.rule, self.feedback, self.terminal, self.rank = RULES[curvature], feedback, terminal, rank
        self.proximal, self.curvature_scale = control_hessian == "proximal", curvature_scale
        self.max_grad_norm, self.tikhonov, self.generator = max_grad_norm, tikhonov, generator
        self.line_search, self.processes = line_search, processes
        if processes.count > 1 and curvature == "exact":
            raise ValueError("the exact curvature needs all samples of a batch in one process")
        if processes.count > 1 and self.loss.of_whole_batch:
            raise ValueError(
                f"{loss} weighs a sample by the others of its batch, and a process has its share only: give a loss of "
                "ocpkit_nn.layers.losses, CrossEntropy for one"
            )
        if gains == "separable":
            self._check_separable(curvature, dynamics)
        self.curvature, self.gains, self.lost = curvature, gains, ""
        self._policies: list[LayerPolicy] = []
        self._aimed: list[AimedGradient] = []
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "decay": DECAYS.get(curvature, 0.95) if decay is None else decay,
            "betas": betas,
            "eps": eps,
            "damping": damping,
            "basis_every": basis_every,
            "weight_decay": weight_decay,
        }
        check_options(defaults)
        for name, rules in CYCLED.items():  # torch's schedulers go by what is there
            if curvature not in rules:
                del defaults[name]
        super().__init__(self._take(model, groups or []), defaults)
        self._begin()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def _adopt(self, before: list[Stage], after: list[Stage]) -> list[Stage]:
        check_no_backward_hooks(self.model)
        if self.dynamics == "second":
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
        self._policies, self._aimed = [], []

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
        self._begin()
        self._policies, self._aimed = [], []  # the last step's vectors, as many as this one's
        self._values: Tensor | None = None
        self._undo.keep_buffers()
        try:
            return self._advance(inputs, targets)
        except BaseException as error:
            finite = self._undo.all_finite(moments=True)
            self._undo.restore()
            self._policies, self._aimed = [], []
            spoiled = not finite or any(first_not_finite(each) is not None for each in (inputs, self._values))
            if spoiled and isinstance(error, (RuntimeError, ValueError)):
                raise refusal(inputs, self._values) from error  # drawing from, or decomposing, what is not finite
            raise

    def _advance(self, inputs: Tensor, targets: Tensor) -> float:
        """Take the step and return the mean loss before it."""
        self._samples = self.processes.see(len(inputs), inputs.device)
        states, linearisations, outputs = self._simulate(inputs)
        with without_autocast(outputs):
            self._values, gradient = self.loss.value_and_gradient(outputs, targets)
        known = gradient.element_size() >= 4 and all([stage.is_regular for stage in self.stages])
        seen = [states[0], outputs, gradient] if known else []
        loss, small = finite_mean(inputs, self._values, seen, self.processes)
        known = known and small
        if self.line_search or not known:
            self._undo.keep_controls(self._parameters(), [self._memory(stage) for stage in self.stages])
        if self.gains == "separable":
            self._aimed = self._separable_step(states, linearisations, gradient)
        else:
            with without_autocast(outputs):
                self._policies = self._backward_pass(linearisations, outputs, targets, gradient)
            if self.line_search:
                self._search(states, targets, loss)
            else:
                self._forward_pass(states, self._policies)
            if self.curvature in FACTORED:
                with without_autocast(outputs):
                    eigenbases.renew(map(self._memory, self.stages), self._groups, self.processes)
        if not known and not self._undo.all_finite(moments=self.curvature in FACTORED):
            raise refusal(inputs, self._values)
        return loss

    def _parameters(self) -> list[Tensor]:
        return [parameter for stage in self.stages for parameter in stage.layer.parameters]

    def _check_separable(self, curvature: str, dynamics: str) -> None:
        if curvature not in fused.CURVATURES:
            raise ValueError(f"separable gains are for the curvatures {', '.join(fused.CURVATURES)}, not {curvature}")
        plain = self.terminal == "empirical" and self.proximal and not self.tikhonov and not self.line_search
        if not plain or dynamics == "second":
            raise ValueError(
                "separable gains need terminal='empirical', control_hessian='proximal', dynamics='first', tikhonov=0 "
                "and no line search"
            )

    def _simulate(self, inputs: Tensor) -> tuple[list[Tensor], list[Linearisation], Tensor]:
        """Nominal trajectory X_t of the batch (Alg. 3, line 5)."""
        x = inputs
        for module in self.preparation:
            x = module(x)
        states, linearisations = [], []
        for stage in self.stages:
            states.append(x)
            stage.adapt(x)
            x, linearisation = stage.linearise(x)
            stage.check_samples_do_not_mix(states[-1], x)
            linearisation.average = self.processes.average
            linearisations.append(linearisation)
        return states, linearisations, x

    def _backward_pass(
        self, linearisations: list[Linearisation], outputs: Tensor, targets: Tensor, gradient: Tensor
    ) -> list[LayerPolicy]:
        """Terminal value (line 6) and backward Bellman pass (lines 7-13)."""
        feedback = self.feedback != "none"
        gradient, scale = self._clipped(gradient, linearisations)
        if feedback and self.dynamics == "second":
            columns = self._terminal_columns(outputs, targets, gradient)
            terminal = Value(gradient, scale * columns.transpose(1, 2) @ columns)
            return second_order_pass(
                self.stages,
                linearisations,
                outputs,
                terminal,
                self._rule,
                scale=self._scale(),
                proximal=self.proximal,
                tikhonov=self.tikhonov,
            )
        rank_one = self.terminal == "empirical" and self.proximal and self.rule is not RULES["exact"]
        if not feedback or (rank_one and self.tikhonov == 0):
            return parallel_pass(
                linearisations,
                gradient,
                self._rule,
                feedback=feedback,
                scale=scale,
                workspaces=self._workspaces,
            )
        columns = scale**0.5 * self._terminal_columns(outputs, targets, gradient).transpose(0, 1)
        if self.tikhonov == 0:
            return bellman_pass(linearisations, gradient, columns, self._rule, proximal=self.proximal)
        return dense_pass(linearisations, gradient, columns, self._rule, proximal=self.proximal, tikhonov=self.tikhonov)

    def _terminal_columns(self, outputs: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
        """Columns Z (B, r, C) of the terminal Hessian Z Zᵀ."""
        if self.terminal == "empirical":
            return gradient[:, None]
        return self.loss.factors(outputs, targets, self.terminal, self.generator, self.rank)  # type: ignore[arg-type]

    def _rule(
        self,
        t: int,
        gradients: LayerGradients,
        memory: Memory | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Metric, Tensor]:
        """Ask the baseline for its M/η and direction at stage t, by default with that stage's memory and options."""
        layer, options = self.stages[t].layer, options or self._groups[t]
        if options["weight_decay"]:
            gradients = replace(gradients, mean=gradients.mean + options["weight_decay"] * layer.matrix())
        return self.rule(gradients, self._memory(self.stages[t]) if memory is None else memory, options)

    def _memory(self, stage: Stage) -> Memory:
        """What the baseline's rule remembers of a stage."""
        memory: Memory = self.state[stage.layer.parameters[0]]
        return memory

    def _scale(self) -> float:
        """Return the factor of a sample's second derivatives."""
        return 1 / self._samples if self.curvature_scale is None else self.curvature_scale

    def _clipped(self, gradient: Tensor, linearisations: list[Linearisation]) -> tuple[Tensor, float]:
        """∇φ and the factor of the terminal Hessian, with the whole cost scaled down if the gradient is too large."""
        if self.max_grad_norm is None:
            return gradient, self._scale()
        clip = self._clip_factor(gradient, linearisations)
        if self.terminal == "empirical" and clip > 0:  # of (c ∇φ)(c ∇φ)ᵀ, where the cost c φ has c ∇φ ∇φᵀ
            return gradient * clip, self._scale() / clip
        return gradient * clip, self._scale() * clip  # zero where the norm overflows

    def _clip_factor(self, gradient: Tensor, linearisations: list[Linearisation]) -> float:
        """Factor of the whole cost that brings the norm of the batch's gradient down to `max_grad_norm`."""
        base, weight, total = StateBase(gradient[None]), gradient.new_ones(len(gradient), 1), 0.0
        for t, linearisation in reversed(list(enumerate(linearisations))):
            total += float((linearisation.pull_control(base).expectation(weight) ** 2).sum())
            if t > 0:
                base = StateBase(linearisation.through_batch(linearisation.pull_state(base).vectors[0])[None])
        assert self.max_grad_norm is not None
        return min(1.0, self.max_grad_norm / (total**0.5 + 1e-6))

    def _forward_pass(self, states: list[Tensor], policies: list[LayerPolicy], step_size: float = 1.0) -> Tensor:
        """Lines 14-18: u ← u + α k + E[K_i δx_i] along the new trajectory; without feedback no trajectory is needed.

        Returns the input of the last layer on the new trajectory, if there is one.
        """
        x, last, full = states[0], len(states) - 1, self.feedback == "full"
        for t, (stage, policy) in enumerate(zip(self.stages, policies)):
            with without_autocast(x):
                policy.apply(stage.layer, x - states[t] if full and t > 0 else None, step_size)
            if (full or self.line_search) and t < last:
                x = stage.forward_again(x)
        return x

    def _search(self, states: list[Tensor], targets: Tensor, before: float) -> None:
        """Take the first of α = 1, ½, ¼, … at which the batch's total cost does not rise; stay where none is."""
        before += self._running_cost()
        for halvings in range(HALVINGS + 1):
            outputs = self.stages[-1].forward_again(self._forward_pass(states, self._policies, 0.5**halvings))
            with without_autocast(outputs):
                after = float(self.processes.average(self.loss.value_and_gradient(outputs, targets)[0].mean()))
            if after + self._running_cost() <= before:
                return
            self._undo.restore_parameters()

    def _running_cost(self) -> float:
        """Σ_t ½ λ ‖u_t‖²."""
        decayed = [(stage.layer, group["weight_decay"]) for stage, group in zip(self.stages, self._groups)]
        return sum(0.5 * decay * float(layer.matrix().square().sum()) for layer, decay in decayed if decay)

    def _separable_step(
        self, states: list[Tensor], linearisations: list[Linearisation], gradient: Tensor
    ) -> list[AimedGradient]:
        """Both passes with separable gains (see `separable`)."""
        memories = [self._memory(stage) for stage in self.stages]
        rates = [group["lr"] for group in self._groups]

        def metric(t: int, control: ControlBase, weight: Tensor) -> Metric:
            options = {**self._groups[t], "lr": 1.0}
            known = self._metric(t, options)
            if known is not None:
                return known
            gradients = LayerGradients(control.expectation(weight), control, weight, None)
            return self._rule(t, gradients, {}, options)[0]  # what the first gradient alone would make of it

        def descend(gradients: dict[int, list[Tensor]]) -> None:
            for options in self._options:
                some = [t for t in gradients if self._groups[t] is options]
                if some:
                    layers = [self.stages[t].layer for t in some]
                    mine, moments = [gradients[t] for t in some], [memories[t] for t in some]
                    fused.descend(self.curvature, layers, mine, moments, options)

        with without_autocast(gradient):
            gradient, scale = self._clipped(gradient, linearisations)
            scale = 0.0 if self.feedback == "none" else scale  # V_xx = 0 leaves the baseline
            aimed = separable.backward_pass(linearisations, gradient, memories, rates, scale, metric)
        separable.forward_pass(self.stages, states, aimed, descend, feedback=self.feedback == "full")
        return aimed

    def _metric(self, t: int, options: dict[str, Any]) -> Metric | None:
        """M/η of stage t where its steps are fused."""
        stage = self.stages[t]
        return fused.metric(self.curvature, stage.layer, self._memory(stage), options)

    def policies(self) -> list[FeedbackGain | None]:
        """Return the feedback gains of the last step, one per stage (None: no feedback, or stage 0, where δx = 0)."""
        metrics = [self._metric(t, self._groups[t]) for t in range(len(self._aimed))]
        fused_gains = [
            None if self.feedback == "none" else aimed.feedback(metric)
            for aimed, metric in zip(self._aimed, metrics)
            if metric is not None
        ]
        return fused_gains or [policy.gain for policy in self._policies]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved; training then goes on bit for bit.

        Raises
        ------
        ValueError
            If the moments are kept in the form of the other kind of gains.
        """
        kind = list if self.gains == "separable" else Tensor
        for state in state_dict["state"].values():
            if any(not isinstance(state.get(name, kind()), kind) for name in fused.MOMENTS):
                raise ValueError(
                    f'the moments saved are not in the form of gains="{self.gains}": load them into an optimizer with '
                    "the gains they were trained with, or train again"
                )
        super().load_state_dict(state_dict)

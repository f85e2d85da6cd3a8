"""Differential dynamic programming (Alg. 1; Jacobson & Mayne 1970) and iLQR (Li & Todorov 2004).

    minimize φ(x_T) + Σ ℓ_t(x_t, u_t)   subject to   x_{t+1} = f_t(x_t, u_t)

Each iteration expands the problem along the current trajectory, computes affine policies backward
(`bellman.backward_pass`) and applies them forward. What makes it global:

* *line search* (`line_search`): α = 1, ½, ¼, … until J has fallen by at least a fraction of what the quadratic model
  promises, less what rounding makes of Σ |ℓ_t| + |φ|. With open gaps the merit J + ν s stands for J, s the share of the
  guess's gaps that is left;
* *damping* (`damping`): Q_uu + μ D, D the mean of |Q_uu|'s diagonal (`curvature.Metric`), or V_xx + μ diag |V_xx|, so
  that μ has no unit. It grows when Q_uu is not positive definite or no step is accepted, and shrinks after good steps:
  `decisions` is the table of what is done when;
* *gaps*: a state guess need not satisfy the dynamics; the forward pass multiplies the gaps by 1 − α (Mastalli et al.
  2020, FDDP), so that s falls from 1 to 0. While gaps are open the model is Gauss-Newton's: V_x is not yet a
  co-state, and V_x·f_xx would add curvature that means nothing;
* *saddles*: a stationary point counts as a minimum where the undamped recursion, with V_x·f_xx, is positive definite;
  else the driver looks for lower J along the negative curvature, and the run goes on from there (`second_order`);
* *control bounds*: the policy minimizes the quadratic model inside the bounds (`box`; Tassa, Mansard & Todorov 2014),
  gains are zero where a bound holds, and the forward pass cuts at the bounds what the feedback asks beyond them.

DDP expands the dynamics to second order and converges quadratically; iLQR drops V_x·f_xx and uses
Gauss-Newton for least-squares costs, and converges linearly but with cheaper, always convex steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.ddp.line_search import BACKTRACKING
from ocpkit.solvers.ddp.options import DDPOptions
from ocpkit.solvers.ddp.run import DDPRun
from ocpkit.solvers.driver import AnyRun
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.renamed import OldNames, accept_old_names

if TYPE_CHECKING:
    from ocpkit.engines.c.build import Build

OF_DAMPING = {
    "regularize": "target",
    "initial_regularization": "initial",
    "min_regularization": "minimum",
    "max_regularization": "maximum",
    "regularization_factor": "factor",
}
OF_LINE_SEARCH = {"min_step_size": "min_step_size", "armijo": "armijo"}
OLD_NAMES = (
    OldNames("damping", QUADRATIC, OF_DAMPING),
    OldNames("line_search", BACKTRACKING, OF_LINE_SEARCH, switch=True),
)


@accept_old_names(*OLD_NAMES)
@dataclass(frozen=True, kw_only=True)
class DDP(DDPOptions):
    """Differential dynamic programming.

    Parameters
    ----------
    second_order
        Keep V_x·f_xx, V_x·f_ux, V_x·f_uu and the full Hessian of least-squares costs (DDP), or not (iLQR).
    feedback
        Keep Q_ux; without it this is stage-wise Newton (Prop. 2).
    curvature
        What stands for Q_uu; None is the exact Q_uu with the damping below. Each solve takes a copy of it, so that
        nothing is remembered from one to the next.
    gradient_tolerance
        Converged when max |Q_u + y|/√|Q_uu|, over all controls, is at most this times √S (see `optimality`); y, the
        multipliers of the control bounds, are zero where no bound holds. With ``scaling=False``: when |Q_u + y| is at
        most this [cost per unit of control].
    cost_tolerance
        Converged also when no gap is open and the undamped quadratic model promises a decrease of at most this times
        S = Σ |ℓ_t| + |φ| + 1e-60 of J's spread since the guess. With ``scaling=False``: times 1 + |J|.
    gap_tolerance
        Share of the guess's gaps that counts as closed; they all shrink by the same factor.
    tikhonov
        Constant ε added to V_xx (Alg. 3, line 12).
    damping
        Levenberg damping of the exact Q_uu and its schedule; None: ``Damping()``, but for inner solvers of
        `AugmentedLagrangian` and `InteriorPoint`, which have a schedule of their own.
    line_search
        How far to go along a step; None: always the full step, as training does.
    infeasible_start
        Start from a state guess even if there is none: x0 at every stage.
    engine
        What computes the sweeps, with equal results: ``"numpy"``, ``"vm"`` (CasADi's virtual machine), ``"c"``
        (compiled), or ``"auto"`` (see `ocpkit.solvers.choose`).
    """

    def begin(self, problem: Problem, guess: Guess) -> AnyRun:
        from ocpkit.solvers.choose import choose_engine  # the engines are loaded by the first solve
        from ocpkit.solvers.ddp.compiled import CompiledRun
        from ocpkit.solvers.ddp.switch import SwitchingRun

        if self.infeasible_start and guess.states is None:
            if len(set(problem.state_sizes)) > 1:
                raise ProblemError("the state size changes along the horizon: infeasible_start needs states=")
            guess = replace(guess, states=(problem.x0,) * (problem.horizon + 1))
        if problem.bounded:
            guess = replace(guess, controls=tuple(problem.clip(guess.controls)))
        choice = choose_engine(problem, self.engine, self.obstacle, self.time_limit)
        run: DDPRun | CompiledRun
        if choice.graph is not None and choice.library is not None:
            run = CompiledRun.begin(self, problem, choice.graph, choice.library, guess)
            final = not choice.library.quick
        else:
            run, final = DDPRun(self, choice.engine(problem), guess, choice.reason), choice.graph is None
        return run if final or choice.graph is None else SwitchingRun(run, problem, choice.graph)

    def compile(self, problem: Problem) -> Build | None:
        from ocpkit.solvers.choose import begin_compiling

        return begin_compiling(problem, self.engine, self.obstacle)


@accept_old_names(*OLD_NAMES)
@dataclass(frozen=True, kw_only=True)
class ILQR(DDP):
    """Iterative LQR: `DDP` with first-order dynamics (the Gauss-Newton form of the paper, Sec. 3.2)."""

    second_order: bool = False


@accept_old_names(*OLD_NAMES)
@dataclass(frozen=True, kw_only=True)
class FDDP(DDP):
    """Feasibility-driven DDP: `DDP` from a state guess with gaps, by default x0 at every stage."""

    infeasible_start: bool = True

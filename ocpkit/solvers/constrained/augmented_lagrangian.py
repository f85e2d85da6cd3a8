"""Constrained problems by an augmented Lagrangian around DDP (Rockafellar 1973; ALTRO, Howell et al. 2019).

    minimize φ(x_T) + Σ ℓ_t(x_t, u_t)   subject to   x_{t+1} = f_t(x_t, u_t),   lower ≤ g_t(x_t, u_t) ≤ upper

One outer iteration minimizes the augmented Lagrangian at (y, ρ) by DDP, warm-started, which keeps the control bounds by
itself, and then moves the multipliers, y ← ρ (s − Π_C(s)). With r = |y⁺ − y|/ρ, which is zero only where the rows are
satisfied *and* complementary to y, the penalty grows by a factor whenever r has not fallen enough. The inner tolerance
tightens with r. Where ρ is so small that DDP runs off beyond the constraints, to where the model has no derivatives or
J no bottom, it begins again with a larger one.

Each row has its natural unit s_i, and J beside them has S (see `units`): ρ, μ, r and the tolerances are numbers in
these, so that row i is priced with ρ S/s_i² and the barrier is μ S, and no unit of the user's changes the iterates.

Where ρ has grown to its largest and the rows still do not hold, the violation alone, Σ dist²/s², is minimized: without
multipliers, J counts for 1/ρ beside it. Only if that converges, and a ρ a hundred times as large lowers the violation
no more, is it stationary, and the rows are called infeasible; else the solver gives up.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.c.build import Build
from ocpkit.problem.constraint_rows import broken_at_start
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Failure, Reason
from ocpkit.solvers.choose import begin_compiling, choose_engine
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.constrained.barrier import Barrier
from ocpkit.solvers.constrained.compiled import CompiledAugmentedRun
from ocpkit.solvers.constrained.options import ConstrainedOptions
from ocpkit.solvers.constrained.penalty import Penalty
from ocpkit.solvers.constrained.run import AugmentedLagrangianRun
from ocpkit.solvers.constrained.units import Units, first_units, measure_units
from ocpkit.solvers.driver import AnyRun
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.renamed import OldNames, accept_old_names

OF_PENALTY = {
    "initial_penalty": "initial",
    "max_penalty": "maximum",
    "penalty_factor": "factor",
    "enough": "required_decrease",
}
OLD_PENALTY = OldNames("penalty", Penalty(), OF_PENALTY)


@accept_old_names(OLD_PENALTY)
@dataclass(frozen=True, kw_only=True)
class AugmentedLagrangian(ConstrainedOptions):
    """DDP under constraints: control bounds, stage and terminal constraints, equalities and inequalities.

    Parameters
    ----------
    inner
        The unconstrained solver; its iteration limit is per outer iteration. Its tolerances of gradient and cost
        follow from those below, and may not be given.
    constraint_tolerance
        Converged when every row holds to this [natural unit of the row], complementarity included.
    gradient_tolerance
        … and the inner solver converges to this gradient of the Lagrangian, as it measures it.
    first_tolerance
        That of the first inner solve; each outer iteration asks for a tenth, down to `gradient_tolerance`.
    penalty
        Schedule of ρ.
    """

    def begin(self, problem: Problem, guess: Guess) -> AnyRun:
        return begin_run(self, problem, guess)

    def compile(self, problem: Problem) -> Build | None:
        return compile_run(self, problem)


def begin_run(options: ConstrainedOptions, problem: Problem, guess: Guess, barrier: Barrier | None = None) -> AnyRun:
    """Set up a run on the engine that the inner solver asks for, refused where x0 breaks a row."""
    augmented, inner = Augmented(problem, barrier=barrier is not None), options.inner
    choice = choose_engine(augmented.template, inner.engine, inner.obstacle, min(options.time_limit, inner.time_limit))
    plain = not inner.infeasible_start and inner.time_limit == float("inf")
    if choice.graph is not None and choice.library is not None and plain:
        run: CompiledAugmentedRun | AugmentedLagrangianRun = CompiledAugmentedRun(
            options, augmented, choice.graph, choice.library, guess, barrier
        )
    else:
        run = AugmentedLagrangianRun(options, augmented, guess, barrier)
    excess, row = broken_at_start(problem, augmented.rows[0])
    if excess > 0 and excess > options.constraint_tolerance * _unit_at_start(options, augmented, guess, row):
        run.refuse(Reason(failure=Failure.START_BREAKS_ROW, stage=0, row=row, amount=excess))
    return run


def compile_run(options: ConstrainedOptions, problem: Problem, *, barrier: bool = False) -> Build | None:
    """Begin to build what `begin_run` runs on, in a process beside."""
    template = Augmented(problem, barrier=barrier).template
    return begin_compiling(template, options.inner.engine, options.inner.obstacle)


def _unit_at_start(options: ConstrainedOptions, augmented: Augmented, guess: Guess, row: str) -> float:
    """Natural unit of a row of stage 0."""
    units = first_units(augmented, guess, scaling=options.scaling)
    if units is None:
        controls = augmented.problem.clip(guess.controls)
        states, cost = augmented.problem.rollout(controls)
        start = states if guess.states is None else guess.states
        units = measure_units(augmented, start, controls, cost) or Units.of_user(augmented)
    return float(units.rows[0][augmented.rows[0].names.index(row)])

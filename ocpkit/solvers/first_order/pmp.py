"""Pontryagin's principle by successive approximations: MSA and E-MSA (Li, Chen, Tai & E 2017).

With the discrete Hamiltonian H_t(x, p, u) = ℓ_t(x, u) + pᵀ f_t(x, u) (Eq. 20), one iteration

1. rolls the states forward, x_{t+1} = ∇_p H_t (Eq. 19a);
2. sweeps the co-states backward, p_t = ∇_x H_t, p_T = ∇φ (Eq. 19b);
3. minimizes at every stage, u_t = argmin_v H_t(x_t, p_{t+1}, v) (Eq. 19c), or takes a gradient step on it.

Step 3 ignores that new controls move the states, so MSA diverges where stages are strongly coupled.
E-MSA adds ½ρ‖x_{t+1} − f_t(x_t, v)‖² + ½ρ‖p_t − ∇_x H_t(x_t, p_{t+1}, v)‖² to H (Eq. 23, 24), which for
large enough ρ makes every iteration a descent; here ρ grows until it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_time
from ocpkit.engines.numpy import Policy
from ocpkit.errors import ProblemError, refuse_unused, unknown_name
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage
from ocpkit.recursion.bellman import q_gradient
from ocpkit.solution.details import Failure
from ocpkit.solution.history import Iteration, PenaltyIteration
from ocpkit.solution.solution import Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.ddp.decisions import BLOWN_UP
from ocpkit.solvers.driver import positive
from ocpkit.solvers.first_order.adjoint import FirstOrderRun, FirstOrderSolver
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.renamed import OldName, accept_old_names

Objective = Callable[[Array], tuple[float, Array]]
RATE = 1e-2
BLOW_UP = 1e8
SETTLED = 1e-6
"""Relative change of the controls below which MSA rests, as far as L-BFGS resolves a minimum (√ε)."""


@accept_old_names(OldName("minimisation", "minimization"))
@dataclass(frozen=True, kw_only=True)
class MSA(FirstOrderSolver):
    """The method of successive approximations.

    Parameters
    ----------
    minimization
        ``"exact"``: argmin of the Hamiltonian; ``"gradient"``: one step −η ∇_u H (gradient descent, Eq. 22).
    learning_rate
        η of the gradient step [squared unit of a control per unit of J]. None: 0.01 in natural units of J and controls.
    relaxation
        Fraction of the way from the old control to the minimizer, in (0, 1].
    patience
        Iterations without a new best cost after which the method is reported as diverging.
    stage_iterations
        Limit of L-BFGS iterations per stage.
    """

    max_iterations: int = 500
    minimization: str = "exact"
    learning_rate: float | None = None
    relaxation: float = 1.0
    patience: int = 20
    stage_iterations: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "patience", "stage_iterations", *(["learning_rate"] if self.learning_rate is not None else []))
        if self.minimization not in ("exact", "gradient"):
            raise unknown_name("minimization", self.minimization, ("exact", "gradient"))
        if not 0 < self.relaxation <= 1:
            raise ProblemError(f"relaxation must lie in (0, 1], got {self.relaxation!r}")
        of_others = ("learning_rate",) if self.minimization == "exact" else ("relaxation", "stage_iterations")
        refuse_unused(self, f"with minimization={self.minimization!r}", *of_others)

    def begin(self, problem: Problem, guess: Guess) -> MSARun:
        return MSARun(self, problem, guess)


@dataclass(frozen=True, kw_only=True)
class EMSA(FirstOrderSolver):
    """The extended method of successive approximations, with the augmented Hamiltonian.

    Parameters
    ----------
    penalty
        First ρ, in natural units of J, states and co-states.
    penalty_factor
        ρ is multiplied by this when the cost does not fall, and divided by its root when it does.
    min_penalty, max_penalty
        Bounds of ρ; above the maximum the method gives up.
    squared
        True: ½ρ‖·‖² as in Li et al.; False: ½ρ‖·‖, the norms as printed in Eq. 23.
    stage_iterations
        Limit of L-BFGS iterations per stage.
    """

    max_iterations: int = 500
    penalty: float = 1.0
    penalty_factor: float = 4.0
    min_penalty: float = 1e-8
    max_penalty: float = 1e12
    squared: bool = True
    stage_iterations: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "penalty", "min_penalty", "max_penalty", "stage_iterations")
        if self.penalty_factor <= 1:
            raise ProblemError(f"penalty_factor must be above 1, got {self.penalty_factor!r}")

    def begin(self, problem: Problem, guess: Guess) -> EMSARun:
        return EMSARun(self, problem, guess)


def hamiltonian(stage: Stage, x: Array, costate: Array, u: Array, p: Array) -> tuple[float, Array, Array]:
    """Eq. 20 with its gradients: H, H_x (n,), H_u (m,); `costate` is p_{t+1}, `p` the problem's parameters."""
    value = stage.cost.value(x, u, p) + float(costate @ stage.dynamics.step(x, u, p))
    (lx, lu), (fx, fu) = stage.cost.gradient(x, u, p), stage.dynamics.jacobians(x, u, p)
    return value, *q_gradient(fx, fu, lx, lu, costate)


def augmented_hamiltonian(
    stage: Stage,
    x: Array,
    costate: Array,
    p: Array,
    following: Array,
    own_costate: Array,
    rho: float,
    squared: bool,
    units: tuple[float, Array, Array],
) -> Objective:
    """Eq. 23 as a function of the control: returns H̃ and its gradient (m,); `units` are those of J, x_t and x_{t+1}."""
    cost, own, after = units

    def objective(u: Array) -> tuple[float, Array]:
        value, Hx, Hu = hamiltonian(stage, x, costate, u, p)
        state_error = following - stage.dynamics.step(x, u, p)
        costate_error = own_costate - Hx
        Hux = stage.cost.hessian(x, u, p)[1] + stage.dynamics.hessian_product(x, u, p, costate)[1]
        fu = stage.dynamics.jacobians(x, u, p)[1]
        penalty_x, slope_x = _penalty(state_error / after, cost * rho, squared)
        penalty_p, slope_p = _penalty(costate_error * own / cost, cost * rho, squared)
        return value + penalty_x + penalty_p, Hu - fu.T @ (slope_x / after) - Hux @ (slope_p * own / cost)

    return objective


def _penalty(error: Array, rho: float, squared: bool) -> tuple[float, Array]:
    """½ρ‖e‖² or ½ρ‖e‖, and its gradient in e (zero at the kink)."""
    if squared:
        return 0.5 * rho * float(error @ error), rho * error
    norm = float(np.sqrt(error @ error))
    return 0.5 * rho * norm, 0.5 * rho * error / max(norm, float(np.finfo(float).tiny))


class NoMinimum(FloatingPointError):
    """A Hamiltonian has no finite minimizer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


def minimize_control(
    objective: Objective, u: Array, lower: Array, upper: Array, iterations: int, units: tuple[float, Array]
) -> Array:
    """argmin over lower ≤ u ≤ upper by L-BFGS-B; where the objective is linear, the bound that it points to.

    `units` are those of the objective and of u (m,), in which L-BFGS-B sees both.

    Raises
    ------
    NoMinimum
        If the objective is linear and unbounded below, or not finite.
    """
    if not u.size:
        return u
    cost, scales = units
    _, gradient = objective(u)
    probe = np.where(np.isfinite(lower), lower, u - scales), np.where(np.isfinite(upper), upper, u + scales)
    if all(np.array_equal(objective(v)[1], gradient) for v in probe):
        bound = np.where(gradient > 0, lower, np.where(gradient < 0, upper, u))
        if not np.isfinite(bound).all():
            raise NoMinimum(Failure.LINEAR_HAMILTONIAN)
        return np.asarray(bound)
    from scipy.optimize import minimize

    base, _ = objective(u)

    def in_units(v: Array) -> tuple[float, Array]:
        value, slope = objective(v * scales)
        return (value - base) / cost, slope * scales / cost

    result = minimize(
        in_units,
        u / scales,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(lower / scales, upper / scales)),
        options={"maxiter": iterations, "ftol": 1e-15, "gtol": 1e-10},
    )
    if not np.isfinite(result.x).all():
        raise NoMinimum(Failure.HAMILTONIAN_BLEW_UP)
    return np.clip(result.x * scales, lower, upper)


class MSARun(FirstOrderRun):
    """One MSA solve: the current iterate may be worse than the best one, which is what is returned."""

    def __init__(self, options: MSA, problem: Problem, guess: Guess) -> None:
        super().__init__(options, problem, guess)
        self.options = options
        self.current: tuple[Trajectory, Policy] | None = None
        self.stagnant = 0

    def leave(self, controls: Sequence[Array]) -> None:
        self.current, self.stagnant = None, 0
        super().leave(controls)

    def step(self) -> Iteration:
        """Advance the current iterate, then put the best one back in its place."""
        assert self.policy is not None
        best = self.trajectory, self.policy
        if self.current is not None:
            self.trajectory, self.policy = self.current
        try:
            return self._advance(*best)
        finally:
            self.current = self.trajectory, self.policy
            if self.status is not Status.CONVERGED and not self.trajectory.cost < best[0].cost:
                self.trajectory, self.policy = best

    def _advance(self, best: Trajectory, best_policy: Policy) -> Iteration:
        previous = self.trajectory
        try:
            with np.errstate(all="ignore"):
                controls = self.problem.clip([self._improve(t) for t in in_time(range(self.problem.horizon))])
        except NoMinimum as error:
            return self._give_up(best, best_policy, error.failure)
        if not all(np.isfinite(u).all() for u in controls):
            return self._give_up(best, best_policy, Failure.CONTROLS_BLEW_UP)
        self.trajectory = self.engine.rollout(controls)
        if not abs(self.trajectory.cost) <= BLOW_UP * max(abs(best.cost), self.scaling.cost):  # or NaN
            return self._give_up(best, best_policy, Failure.COST_BLEW_UP)
        self.adjoint_sweep()
        self.stagnant = 0 if self.trajectory.cost < best.cost else self.stagnant + 1
        if self.status is None and self.stagnant >= self.options.patience:
            moves = zip(controls, previous.controls, self.scaling.controls)
            if all((np.abs(u - v) <= SETTLED * (np.abs(v) + s)).all() for u, v, s in moves):
                self.status = Status.STALLED
            else:
                return self._give_up(best, best_policy, Failure.NO_BETTER_COST)
        return self.record(actual_decrease=previous.cost - self.trajectory.cost, step_size=1.0)

    def _give_up(self, best: Trajectory, best_policy: Policy, failure: Failure) -> Iteration:
        self.fail(failure, iterations=self.stagnant if failure is Failure.NO_BETTER_COST else 0)
        self.status = Status.DIVERGED
        self.trajectory, self.policy = best, best_policy
        return self.record()

    def _improve(self, t: int) -> Array:
        """Step 3 at one stage."""
        options, u = self.options, self.trajectory.controls[t]
        if options.minimization == "gradient":
            natural = RATE * self.scaling.controls[t] ** 2 / self.scaling.cost
            rate = natural if options.learning_rate is None else np.full_like(natural, options.learning_rate)
            return np.asarray(u - rate * self.gradients()[t])
        stage, p = self.problem.stages[t], self.problem.parameter(t)
        x, costate = self.trajectory.states[t], self.costate_after(t)

        def objective(v: Array) -> tuple[float, Array]:
            value, _, Hu = hamiltonian(stage, x, costate, v, p)
            return value, Hu

        lower, upper = np.asarray(stage.control_lower), np.asarray(stage.control_upper)
        units = self.scaling.cost, self.scaling.controls[t]
        minimizer = minimize_control(objective, u, lower, upper, options.stage_iterations, units)
        return u + options.relaxation * (minimizer - u)


class EMSARun(FirstOrderRun):
    """One E-MSA solve; every accepted iterate lowers the cost."""

    def __init__(self, options: EMSA, problem: Problem, guess: Guess) -> None:
        super().__init__(options, problem, guess)
        self.options, self.penalty = options, options.penalty

    def start(self) -> Iteration:
        super().start()
        return self._line(0.0)

    def _line(self, penalty: float, **numbers: float) -> PenaltyIteration:
        """One line of history, with the ρ that was used."""
        line = self.record(**numbers)
        return PenaltyIteration(**asdict(line), penalty=penalty)

    def step(self) -> Iteration:
        options, before = self.options, self.trajectory
        while self.penalty <= options.max_penalty:
            rho = self.penalty
            try:
                with np.errstate(all="ignore"):
                    candidate = self.engine.rollout([self._improve(t) for t in in_time(range(self.problem.horizon))])
            except NoMinimum:
                candidate = before
            if candidate.finite and candidate.cost < before.cost:
                self.trajectory = candidate
                self.penalty = max(options.min_penalty, rho / options.penalty_factor**0.5)
                self.adjoint_sweep()
                return self._line(rho, actual_decrease=before.cost - candidate.cost, step_size=1.0)
            self.penalty *= options.penalty_factor
        self.status = Status.DIVERGED if abs(before.cost) > BLOWN_UP else Status.STALLED
        return self._line(self.penalty)

    def _improve(self, t: int) -> Array:
        """Eq. 24 at one stage."""
        stage, p, now = self.problem.stages[t], self.problem.parameter(t), self.trajectory
        assert self.policy is not None
        objective = augmented_hamiltonian(
            stage,
            now.states[t],
            self.costate_after(t),
            p,
            now.states[t + 1],
            self.policy.steps[t].value.x,
            self.penalty,
            self.options.squared,
            (self.scaling.cost, *self._state_units(t)),
        )
        lower, upper = np.asarray(stage.control_lower), np.asarray(stage.control_upper)
        units = self.scaling.cost, self.scaling.controls[t]
        return minimize_control(objective, now.controls[t], lower, upper, self.options.stage_iterations, units)

    def _state_units(self, t: int) -> tuple[Array, Array]:
        """Units of x_t and x_{t+1}."""
        states = self.scaling.states
        return states[t], states[t + 1]

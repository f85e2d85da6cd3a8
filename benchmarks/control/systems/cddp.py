"""pycddp: C++ DDP with the models that it brings compiled; derivatives by forward automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.control import cddp_models
from benchmarks.control.contestant import Contestant, Outcome, Unavailable
from benchmarks.control.tasks import Task

FREE, BOUNDED = ("CLDDP", "IPDDP"), ("IPDDP", "LogDDP", "MSIPDDP")
"""Solvers by kind of task: CLDDP of version 0.5.2 ignores `ControlConstraint` and ends where there are no bounds."""


@dataclass(frozen=True)
class Cddp:
    """One of pycddp's solvers, first-order dynamics (its default)."""

    solver: str

    @property
    def name(self) -> str:
        return f"pycddp {self.solver}"

    def accepts(self, task: Task) -> bool:
        model = task.source
        return isinstance(model, cddp_models.Model) and self.solver in (BOUNDED if model.limit else FREE)

    def prepare(self, task: Task) -> Contestant:
        try:
            import pycddp
        except ImportError as error:
            raise Unavailable("needs pycddp: pip install pycddp") from error
        model, problem = task.source, task.problem
        system = _system(pycddp, model)
        _check_same(system, task)
        objective = pycddp.QuadraticObjective(
            np.diag(model.Q), np.diag(model.R), np.diag(model.Qf), np.array(model.goal), [], model.time_step
        )
        solver = pycddp.CDDP(
            np.array(model.x0), np.array(model.goal), model.horizon, model.time_step, _options(pycddp, task)
        )
        solver.set_dynamical_system(system)
        solver.set_objective(objective)
        if model.limit:
            limit = np.array(model.limit)
            solver.add_constraint("ControlConstraint", pycddp.ControlConstraint(-limit, limit))
        for i, (*center, radius) in enumerate(model.balls):
            solver.add_constraint(f"Ball{i}", pycddp.BallConstraint(radius, np.array(center)))
        states, controls = problem.rollout()[0], list(problem.controls)
        kind = getattr(pycddp.SolverType, self.solver)

        def solve() -> Outcome:
            solver.set_initial_trajectory(states, controls)
            solution = solver.solve(kind)
            return Outcome(solution.control_trajectory, solution.iterations_completed)

        return Contestant(solve)


def _options(pycddp: Any, task: Task) -> Any:
    options = pycddp.CDDPOptions()
    options.max_iterations, options.acceptable_tolerance = 1000, 1e-9
    options.tolerance = 1e-7 if task.method else 1e-5  # 1e-5 does not reach J where there are general constraints
    options.verbose = options.print_solver_header = False
    return options


def _system(pycddp: Any, model: cddp_models.Model) -> Any:
    """Return pycddp's own model with the numbers of ours."""
    c = cddp_models
    make: dict[str, Callable[[], Any]] = {
        "cartpole": lambda: pycddp.CartPole(model.time_step, "euler", c.CART, c.POLE, c.LENGTH, c.GRAVITY, 0.0),
        "car": lambda: pycddp.Car(model.time_step, 2.0, "euler"),
        "unicycle": lambda: pycddp.Unicycle(model.time_step, "euler"),
        "quadrotor": lambda: pycddp.Quadrotor(model.time_step, c.MASS, np.diag(c.INERTIAS), c.ARM, "euler"),
    }
    return make[model.name]()


def _check_same(system: Any, task: Task) -> None:
    """Compare both dynamics at a random point."""
    rng = np.random.default_rng(0)
    problem = task.problem
    x = problem.x0 + 0.1 * rng.normal(size=problem.state_sizes[0])
    u = problem.controls[0] + 0.1 * rng.normal(size=problem.control_sizes[0])
    theirs, ours = system.get_discrete_dynamics(x, u), problem.stages[0].dynamics.step(x, u, problem.parameter(0))
    if not np.allclose(theirs, ours, rtol=1e-12, atol=1e-12):
        raise Unavailable(f"this version's {task.source.name} steps to {theirs}, ours to {ours}")


SYSTEMS = tuple(Cddp(solver) for solver in dict.fromkeys(FREE + BOUNDED))

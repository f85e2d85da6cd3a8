"""The rate of our controller against do-mpc's on the same plant: ``python -m benchmarks.mpc [--ticks N]``.

Both get the same discrete model, costs and bounds, the same horizon, and in each of three rounds the same states:
those of the closed loop around our controller, with noise. do-mpc (Fiedler et al. 2023) solves by multiple shooting
and IPOPT, warm-started, with exact Hessians. Rows "converged" compare like with like: both solve to their tolerances,
and the largest difference of their controls is printed. A row "one iteration" is our real-time iteration against do-
mpc converged, which is how do-mpc is meant to run. Times are the processor's (one thread each), so that other jobs on
the machine count less; the ratio is the median of the rounds' ratios of medians, beside the least.

Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import describe
from ocpkit import DDP, MPC, Command, Health, Problem, models
from ocpkit.problem.graphs import trace_stage, trace_terminal
from ocpkit.solvers.driver import Solver

NOISE = 0.01


@dataclass(frozen=True)
class Case:
    """A plant with its controller's solver."""

    name: str
    build: Callable[[], Problem]
    solver: Solver


def quadrotor() -> Problem:
    """The task of benchmarks/control, T = 50."""
    return models.get("quadrotor").build(horizon=50, time_step=0.04)


def bounded_quadrotor(horizon: int = 50, time_step: float = 0.04) -> Problem:
    """The same with rotors that cannot pull, nor push more than twice what hovering needs."""
    problem = models.get("quadrotor").build(horizon=horizon, time_step=time_step)
    hover = np.asarray(problem.controls[0])
    stage = replace(problem.stages[0], control_lower=0.0 * hover, control_upper=2.0 * hover)
    return problem.replace(stages=(stage,) * problem.horizon)


def cartpole() -> Problem:
    """The bounded cart-pole, T = 50."""
    return models.get("cartpole-bounded").build(horizon=50)


def pendulum() -> Problem:
    """The pendulum, T = 50."""
    return models.get("pendulum").build(horizon=50)


CASES = (
    Case("quadrotor, converged", quadrotor, DDP()),
    Case("quadrotor, one iteration", quadrotor, DDP(max_iterations=1)),
    Case("pendulum, converged", pendulum, DDP()),
    Case("pendulum, one iteration", pendulum, DDP(max_iterations=1)),
    Case("bounded quadrotor, converged", bounded_quadrotor, DDP()),
    Case("bounded quadrotor, one iteration", bounded_quadrotor, DDP(max_iterations=1)),
    Case("bounded cart-pole, converged", cartpole, DDP()),
    Case("bounded cart-pole, one iteration", cartpole, DDP(max_iterations=1)),
)


def do_mpc_controller(problem: Problem) -> Any:
    """Return do-mpc's controller of the same problem."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about features that are not installed
        import do_mpc
    stage, p = problem.stages[0], problem.parameter(0)
    traced, end = trace_stage(stage, len(p)), trace_terminal(problem.terminal_cost, (), len(p))
    model = do_mpc.model.Model("discrete")
    x = model.set_variable("_x", "x", shape=(stage.dynamics.state_size, 1))
    u = model.set_variable("_u", "u", shape=(stage.dynamics.control_size, 1))
    model.set_rhs("x", traced.f(x, u, p))
    model.setup()
    controller = do_mpc.controller.MPC(model)
    controller.settings.n_horizon, controller.settings.t_step = problem.horizon, 1.0
    controller.settings.store_full_solution = False
    controller.settings.supress_ipopt_output()
    controller.set_objective(mterm=end.phi(model.x["x"], p), lterm=traced.l(model.x["x"], model.u["u"], p))
    controller.set_rterm(u=0.0)
    for side, bound in (("lower", stage.control_lower), ("upper", stage.control_upper)):
        if np.isfinite(bound).all():
            controller.bounds[side, "_u", "u"] = np.asarray(bound)
    controller.setup()
    controller.x0, controller.u0 = problem.x0, problem.controls[0]
    controller.set_initial_guess()
    return controller


def race(case: Case, ticks: int, rounds: int = 3) -> dict[str, Any]:
    """Close the loop around our controller, then give do-mpc the same states, in turn; times in ms of one thread.

    Each controller runs tick after tick as it would alone. The first tick of a round is left out.
    """
    problem = case.build()
    DDP(engine="c").solve(problem)  # compiled before the clock starts
    times, ratios, apart, usable = {"ocpkit": [], "do-mpc": []}, [], 0.0, 0
    for seed in range(rounds):
        states, commands, ours = _closed_loop(MPC(problem, case.solver), ticks, seed)
        theirs = do_mpc_controller(problem)
        others, seconds = zip(*(_timed(lambda x=x, step=theirs.make_step: step(x)[:, 0]) for x in states))
        times["ocpkit"] += ours[1:]
        times["do-mpc"] += seconds[1:]
        ratios.append(median(seconds[1:]) / median(ours[1:]))
        usable += sum(command.health in (Health.OPTIMAL, Health.IMPROVING) for command in commands)
        apart = max(apart, *(float(np.abs(c.control - u).max()) for c, u in zip(commands, others)))
    return {
        "case": case.name,
        "ocpkit": 1e3 * median(times["ocpkit"]),
        "do-mpc": 1e3 * median(times["do-mpc"]),
        "ratio": median(ratios),
        "least": min(ratios),
        "apart": apart,
        "usable": f"{usable}/{rounds * (ticks + 1)}",
    }


def _closed_loop(controller: MPC, ticks: int, seed: int) -> tuple[list[Any], list[Command], list[float]]:
    """Return the states that were measured, the commands and the times [s] of ticks 0 … `ticks`."""
    problem, rng = controller.problem, np.random.default_rng(seed)
    states, commands, seconds = [problem.x0], [], []
    for _ in range(ticks + 1):
        command, time_taken = _timed(lambda: controller.step(states[-1]))
        commands.append(command)
        seconds.append(time_taken)
        following = problem.stages[0].dynamics.step(states[-1], command.control, problem.parameter(0))
        states.append(following + NOISE * rng.normal(size=len(following)))
    return states[:-1], commands, seconds


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def main(ticks: int) -> None:
    """Print the machine and the table."""
    print(", ".join(f"{key} {value}" for key, value in describe("casadi", "numpy", "do-mpc").items()), f"ticks {ticks}")
    print(f"{'':<34}{'ocpkit ms':>10}{'do-mpc ms':>10}{'ratio':>8}{'least':>8}{'|Δu|':>9}{'usable':>8}")
    for case in CASES:
        row = race(case, ticks)
        print(
            f"{row['case']:<34}{row['ocpkit']:>10.3f}{row['do-mpc']:>10.2f}{row['ratio']:>8.0f}"
            f"{row['least']:>8.0f}{row['apart']:>9.1e}{row['usable']:>8}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=40)
    main(**vars(parser.parse_args()))

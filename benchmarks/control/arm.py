"""The Panda arm beside Crocoddyl with Pinocchio: the same URDF, step, cost and guess.

    python -m benchmarks.control.arm

Before the race, the sizes of the graphs: ocpkit's, and those of adam's articulated-body algorithm, with its derivatives
by CasADi.

The task is `ocpkit solve panda` without torque limits and without the hand's rotation (Crocoddyl measures that by
an angle, ocpkit by the matrix). Both take the Gauss-Newton Hessian. An iteration of Crocoddyl is calcDiff,
backwardPass and forwardPass in C++, with Pinocchio's analytical derivatives of the articulated-body algorithm; its
wheel is built for every x86-64 processor, ocpkit's code for this one, and by OCPKIT_CFLAGS=-march=x86-64 for every one
too. Needs the extras bench and robots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from rich.console import Console

from benchmarks.control import table
from benchmarks.control.clock import FULL, pin_to_one_core
from benchmarks.control.contestant import Contestant, Unavailable
from benchmarks.control.race import race
from benchmarks.control.systems.crocoddyl_cpp import contestant, load
from benchmarks.control.systems.ocpkit_ddp import Ocpkit
from benchmarks.control.tasks import Task
from benchmarks.machine import describe
from ocpkit import ILQR, Problem
from ocpkit.robots import from_urdf, panda
from ocpkit.robots.urdf import essentials

TORQUE, RATE, TERMINAL, FINAL_RATE = 1e-4, 0.1, 1e3, 0.1
BATCH = 8


def problem() -> Problem:
    """Build the arm's task in ocpkit."""
    return panda.build(
        torque_weight=TORQUE,
        running_rate_weight=RATE,
        terminal_weight=TERMINAL,
        rate_weight=FINAL_RATE,
        turn_weight=0.0,
        effort=np.inf,
    )


@dataclass(frozen=True)
class CrocoddylArm:
    """SolverDDP on Pinocchio's free forward dynamics, integrated by Crocoddyl's Euler rule (the semi-implicit one)."""

    name: str = "Crocoddyl + Pinocchio"

    def accepts(self, task: Task) -> bool:
        return True

    def prepare(self, task: Task) -> Contestant:
        crocoddyl = load()
        try:
            import pinocchio
        except ImportError as error:
            raise Unavailable("needs Pinocchio: pip install 'ocpkit[bench]'") from error
        whole = pinocchio.buildModelFromUrdf(str(panda.URDF()))
        fingers = [i for i, name in enumerate(whole.names) if i and name not in panda.JOINTS]
        model = pinocchio.buildReducedModel(whole, fingers, pinocchio.neutral(whole))
        state = crocoddyl.StateMultibody(model)
        _check(crocoddyl, pinocchio, model, state)
        rates = np.concatenate([np.zeros(7), np.ones(7)])

        def costs(**weighted: tuple[Any, float]) -> Any:
            total = crocoddyl.CostModelSum(state, 7)
            for name, (cost, weight) in weighted.items():
                total.addCost(name, cost, weight)
            return total

        speed = crocoddyl.CostModelResidual(
            state, crocoddyl.ActivationModelWeightedQuad(rates), crocoddyl.ResidualModelState(state, np.zeros(14), 7)
        )
        torque = crocoddyl.CostModelResidual(state, crocoddyl.ResidualModelControl(state, 7))
        hand = crocoddyl.ResidualModelFrameTranslation(
            state, model.getFrameId(panda.HAND), np.array(task.problem.parameters), 7
        )
        ends = costs(miss=(crocoddyl.CostModelResidual(state, hand), TERMINAL), speed=(speed, TERMINAL * FINAL_RATE))
        running, terminal = (
            crocoddyl.IntegratedActionModelEuler(
                crocoddyl.DifferentialActionModelFreeFwdDynamics(state, crocoddyl.ActuationModelFull(state), total), h
            )
            for total, h in ((costs(torque=(torque, TORQUE), speed=(speed, RATE)), panda.TIME_STEP), (ends, 0.0))
        )
        return contestant(crocoddyl, task, running, terminal, BATCH)


def adams_operations() -> dict[str, int]:
    """Count the operations of adam's articulated-body algorithm on the arm with a free base, and of its Jacobian."""
    from adam import Representations
    from adam.casadi import KinDynComputations  # needs adam-robotics[casadi]

    text, joints = essentials(panda.URDF(), panda.JOINTS)
    computations = KinDynComputations(text, joints)
    computations.set_frame_velocity_representation(Representations.BODY_FIXED_REPRESENTATION)
    turn, base, q, v, u = (ca.SX.sym(*name) for name in (("R", 3, 3), ("b", 6), ("q", 7), ("v", 7), ("u", 7)))
    pose = ca.vertcat(ca.horzcat(turn, ca.SX(3, 1)), ca.SX([[0, 0, 0, 1]]))
    a = ca.cse(computations.aba(pose, q, base, v, u))
    jacobian = ca.cse(ca.vertcat(a, ca.vec(ca.jacobian(a, ca.vertcat(ca.vec(turn), q, base, v, u)))))
    return {
        name: ca.Function("adam", [turn, base, q, v, u], [value]).n_instructions()
        for name, value in (("acceleration", a), ("Jacobian", jacobian))
    }


def _check(crocoddyl: Any, pinocchio: Any, model: Any, state: Any) -> None:
    """Refuse a Crocoddyl that was built for another Pinocchio: its accelerations are then whatever was in memory."""
    actuation, costs = crocoddyl.ActuationModelFull(state), crocoddyl.CostModelSum(state, 7)
    action = crocoddyl.DifferentialActionModelFreeFwdDynamics(state, actuation, costs)
    data, x, u = action.createData(), np.array([*panda.START, *np.ones(7)]), np.ones(7)
    action.calc(data, x, u)
    if not np.allclose(data.xout, pinocchio.aba(model, model.createData(), x[:7], x[7:], u)):
        raise Unavailable("this Crocoddyl does not fit this Pinocchio (3.2.1 goes with pin 4.0)")


def main() -> None:
    """Race, and print."""
    pin_to_one_core()
    console = Console(width=140)
    machine = describe("ocpkit", "casadi", "crocoddyl", "pin", "adam-robotics", "example-robot-data")
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for free in (False, True):
        arm = from_urdf(panda.URDF(), panda.JOINTS, free_base=free).dynamics(panda.TIME_STEP)
        console.print(f"operations, ocpkit with a {'free' if free else 'fixed'} base: {arm.operations}")
    try:
        console.print(f"operations, adam with a free base: {adams_operations()}")
    except ImportError as error:
        console.print(f"adam left out: {error}", style="dim")
    task = Task("panda", lambda: problem())
    rows = race(task, [Ocpkit("c", ILQR), CrocoddylArm()], FULL, lambda line: console.print(line, style="dim"))
    table.print_rows(console, rows)


if __name__ == "__main__":
    main()

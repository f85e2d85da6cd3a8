"""One table of problems for the tests of every solver and engine, each with what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

import ocpkit.math as m
from ocpkit import (
    Cost,
    Dynamics,
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    LeastSquares,
    Problem,
    Stage,
    euler,
    rk4,
)

Array = Any


@dataclass(frozen=True)
class Case:
    """A problem and what is known of it.

    Attributes
    ----------
    optimum
        J of the solution, from an independent method where there is one; None: not known.
    budget
        Iterations within which each solver must converge; solvers that are not named need not.
    """

    name: str
    make: Callable[[], Problem]
    optimum: float | None = None
    budget: dict[str, int] = field(default_factory=dict)

    def problem(self) -> Problem:
        """Build the problem (once)."""
        return _built(self.make)

    def __str__(self) -> str:
        return self.name


@cache
def _built(make: Callable[[], Problem]) -> Problem:
    return make()


# ---------------------------------------------------------------------------------------------------- LQR
@dataclass(frozen=True)
class LQR:
    """x' = A x + B u, J = ½ x_Tᵀ F x_T + Σ ½ (xᵀ Q x + 2 uᵀ S x + uᵀ R u), with random matrices."""

    A: Array
    B: Array
    Q: Array
    S: Array
    R: Array
    F: Array
    x0: Array
    horizon: int

    @classmethod
    def random(cls, n: int, m: int, horizon: int, seed: int = 0) -> LQR:
        rng = np.random.default_rng(seed)
        H = rng.normal(size=(n + m, n + m))
        H = H @ H.T / (n + m) + 0.1 * np.eye(n + m)
        A = np.eye(n) + 0.3 * rng.normal(size=(n, n)) / np.sqrt(n)
        F = np.diag(rng.uniform(0.5, 5.0, n))
        return cls(A, rng.normal(size=(n, m)), H[:n, :n], H[n:, :n], H[n:, n:], F, rng.normal(size=n), horizon)

    def problem(self) -> Problem:
        A, B, Q, S, R, F = self.A, self.B, self.Q, self.S, self.R, self.F
        return Problem.from_functions(
            dynamics=lambda x, u: A @ x + B @ u,
            cost=lambda x, u: 0.5 * (x @ Q @ x + u @ R @ u) + u @ S @ x,
            terminal_cost=lambda x: 0.5 * x @ F @ x,
            x0=self.x0,
            horizon=self.horizon,
            control_size=B.shape[1],
            name=f"lqr-{len(A)}-{B.shape[1]}-{self.horizon}",
        )

    def riccati(self) -> tuple[list[Array], list[Array]]:
        """Return P_0 … P_T and K_0 … K_{T-1} by the recursion in Joseph's form, in which rounding does not grow."""
        P, K = [self.F], []
        for _ in range(self.horizon):
            G = self.R + self.B.T @ P[0] @ self.B
            K.insert(0, -np.linalg.inv(G) @ (self.B.T @ P[0] @ self.A + self.S))
            closed, cross = self.A + self.B @ K[0], K[0].T @ self.S
            P.insert(0, self.Q + cross + cross.T + K[0].T @ self.R @ K[0] + closed.T @ P[0] @ closed)
        return P, K

    @property
    def optimum(self) -> float:
        return float(0.5 * self.x0 @ self.riccati()[0][0] @ self.x0)


# ------------------------------------------------------------------------------------------- smooth tasks
def pendulum_field(x: Array, u: Array) -> Array:
    """x = (angle from hanging [rad], rate [rad/s]), u = (torque [N m],), unit mass and length."""
    return m.stack([x[1], -9.81 * m.sin(x[0]) + u[0] - 0.1 * x[1]])


def pendulum() -> Problem:
    return Problem.from_functions(
        dynamics=rk4(pendulum_field, 0.05),
        cost=lambda x, u: 0.05 * (0.5 * u[0] ** 2 + 0.1 * (1 + m.cos(x[0])) + 0.01 * x[1] ** 2),
        terminal_cost=lambda x: 50 * (1 + m.cos(x[0])) + 5 * x[1] ** 2,
        x0=[0.0, 0.0],
        horizon=60,
        controls=[0.3],
        name="pendulum",
    )


def cart_pole_field(x: Array, u: Array) -> Array:
    """x = (position, angle from hanging, their rates), u = (force,); Tedrake, Underactuated Robotics, ch. 3."""
    mass, bob, length, gravity = 1.0, 0.1, 0.5, 9.81
    sin, cos = m.sin(x[1]), m.cos(x[1])
    inertia = mass + bob * sin * sin
    linear = (u[0] + bob * sin * (length * x[3] ** 2 + gravity * cos)) / inertia
    swing = -u[0] * cos - bob * length * x[3] ** 2 * cos * sin - (mass + bob) * gravity * sin
    return m.stack([x[2], x[3], linear, swing / (length * inertia)])


def cart_pole() -> Problem:
    return Problem.from_functions(
        dynamics=rk4(cart_pole_field, 0.02),
        cost=lambda x, u: 0.005 * u[0] ** 2 + 0.01 * x[0] ** 2,
        terminal_cost=lambda x: 50 * ((1 + m.cos(x[1])) ** 2 + x[0] ** 2 + 0.1 * x[2] ** 2 + 0.1 * x[3] ** 2),
        x0=[0.0, 0.0, 0.0, 0.0],
        horizon=100,
        controls=[0.01],
        name="cart-pole",
    )


def quadrotor_field(x: Array, u: Array) -> Array:
    """x = (position, roll, pitch, yaw, velocity, body rates), u = four rotor forces; unit mass, ZYX angles."""
    roll, pitch, yaw, rates, thrust = x[3], x[4], x[5], x[9:12], m.sum(u)
    cr, sr, cp, sp, cy, sy = m.cos(roll), m.sin(roll), m.cos(pitch), m.sin(pitch), m.cos(yaw), m.sin(yaw)
    lift = m.stack([cr * sp * cy + sr * sy, cr * sp * sy - sr * cy, cr * cp])
    p, q, r = rates
    turn = m.stack([p + (sr * q + cr * r) * sp / cp, cr * q - sr * r, (sr * q + cr * r) / cp])
    inertia = np.array([0.01, 0.01, 0.02])
    torque = m.stack([0.2 * (u[1] - u[3]), 0.2 * (u[2] - u[0]), 0.05 * (u[0] - u[1] + u[2] - u[3])])
    spin = (torque - m.cross(rates, inertia * rates)) / inertia
    return m.concatenate([x[6:9], turn, thrust * lift - np.array([0.0, 0.0, 9.81]), spin])


def quadrotor() -> Problem:
    target, hover = np.r_[1.0, 1.0, 1.0, np.zeros(9)], 9.81 / 4
    return Problem.from_functions(
        dynamics=euler(quadrotor_field, 0.05),
        cost=lambda x, u: 0.05 * (m.sum((u - hover) ** 2) + 0.1 * m.sum(x[3:] ** 2)),
        terminal_cost=lambda x: 100 * m.sum((x - target) ** 2),
        x0=np.zeros(12),
        horizon=40,
        controls=[hover] * 4,
        name="quadrotor",
    )


def least_squares() -> Problem:
    """Van der Pol oscillator to rest, costs as residuals."""
    return Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], (1 - x[0] ** 2) * x[1] - x[0] + u[0]]), 0.1),
        cost=LeastSquares(lambda x, u: 0.3 * m.concatenate([x, u])),
        terminal_cost=LeastSquares(lambda x: m.stack([2 * x[0], m.sin(x[1])])),
        x0=[1.0, 0.5],
        horizon=30,
        name="least-squares",
    )


def with_parameters() -> Problem:
    """Reach the target p under a drag p[2]."""
    return Problem.from_functions(
        dynamics=euler(lambda x, u, p: m.stack([x[1], u[0] - p[2] * x[1] * m.sqrt(1 + x[1] ** 2)]), 0.1),
        cost=lambda x, u, p: 0.05 * u[0] ** 2,
        terminal_cost=lambda x, p: 10 * (x[0] - p[0]) ** 2 + (x[1] - p[1]) ** 2,
        x0=[0.0, 0.0],
        horizon=20,
        parameters=[1.0, 0.2, 0.3],
        name="parameters",
    )


def time_varying_parameters() -> Problem:
    """Follow a reference p_t with a damped integrator: linear dynamics, quadratic cost."""
    reference = np.sin(np.linspace(0, 3, 26))[:, None]
    return Problem.from_functions(
        dynamics=lambda x, u, p: 0.9 * x + u,
        cost=lambda x, u, p: (x[0] - p[0]) ** 2 + 0.1 * u[0] ** 2,
        terminal_cost=lambda x, p: 5 * (x[0] - p[0]) ** 2,
        x0=[1.0],
        horizon=25,
        control_size=1,
        parameters=reference,
        name="reference",
    )


def varying_sizes() -> Problem:
    """Three stages R² → R³ → R¹ → R² with one, two and three controls."""
    rng, sizes, controls = np.random.default_rng(3), (2, 3, 1, 2), (1, 2, 3)
    stages = []
    for t, k in enumerate(controls):
        A, B = rng.normal(size=(sizes[t + 1], sizes[t])), rng.normal(size=(sizes[t + 1], k))
        f = FunctionDynamics(partial(_tanh_layer, A, B), sizes[t], k, next_state_size=sizes[t + 1])
        stages.append(Stage(f, FunctionCost(lambda x, u: 0.1 * u @ u + 0.05 * m.sum(m.sin(x) ** 2), sizes[t], k)))
    end = FunctionTerminalCost(lambda x: m.sum((x - 0.5) ** 2), sizes[-1])
    return Problem(stages=tuple(stages), terminal_cost=end, x0=np.array([0.4, -0.2]), name="varying-sizes")


def _tanh_layer(A: Array, B: Array, x: Array, u: Array) -> Array:
    return m.tanh(A @ x) + B @ u


def black_box() -> Problem:
    """The damped pendulum again, from functions that ocpkit may only evaluate (they branch and call `float`)."""

    def step(x: Array, u: Array) -> Array:
        angle, rate = float(x[0]), float(x[1])
        torque = float(u[0]) if abs(rate) >= 0 else 0.0
        return np.array([angle + 0.1 * rate, rate + 0.1 * (-9.81 * np.sin(angle) + torque)])

    return Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: float(0.1 * x @ x + 0.05 * u @ u),
        terminal_cost=lambda x: float(x @ x),
        x0=[0.8, 0.0],
        horizon=20,
        control_size=1,
        derivatives="central",
        name="black-box",
    )


class HandWritten(Dynamics):
    """x' = x + dt (x_2, u − sin x_1), with its derivatives by hand."""

    state_size, control_size, next_state_size = 2, 1, 2
    dt = 0.1

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return x + self.dt * np.array([x[1], u[0] - np.sin(x[0])])

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        return np.eye(2) + self.dt * np.array([[0, 1], [-np.cos(x[0]), 0]]), self.dt * np.array([[0.0], [1.0]])


class HandWrittenCost(Cost):
    """½ xᵀx + ¼ u⁴ + ½ u² + x_1 u / 10."""

    state_size, control_size = 2, 1

    def value(self, x: Array, u: Array, p: Array) -> Any:
        return 0.5 * x @ x + 0.25 * u[0] ** 4 + 0.5 * u[0] ** 2 + 0.1 * x[0] * u[0]

    def gradient(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        return x + np.array([0.1 * u[0], 0.0]), np.array([u[0] ** 3 + u[0] + 0.1 * x[0]])

    def hessian(self, x: Array, u: Array, p: Array) -> tuple[Array, Array, Array]:
        return np.eye(2), np.array([[0.1, 0.0]]), np.array([[3 * u[0] ** 2 + 1]])


def hand_written() -> Problem:
    stage = Stage(HandWritten(), HandWrittenCost(), name="hand-written")
    end = FunctionTerminalCost(lambda x: 5 * x @ x, 2)
    return Problem(stages=(stage,) * 25, terminal_cost=end, x0=np.array([1.5, 0.0]), name="hand-written")


LQRS = {(n, k, T): LQR.random(n, k, T, seed=n) for n, k, T in ((1, 1, 1), (2, 1, 20), (4, 2, 50), (6, 6, 10))}
ONE_STEP = {"ddp": 1, "ilqr": 1, "fddp": 1, "ipopt": 5, "fatrop": 5, "sqp": 3}


CASES = (
    *(Case("lqr-{}-{}-{}".format(*size), lqr.problem, lqr.optimum, ONE_STEP) for size, lqr in LQRS.items()),
    Case("pendulum", pendulum, 20.4494828785, {"ddp": 30, "fddp": 30, "ilqr": 100, "ipopt": 40, "fatrop": 40}),
    Case("cart-pole", cart_pole, 9.9719676736, {"ddp": 40, "ipopt": 60, "fatrop": 60}),
    Case("quadrotor", quadrotor, None, {"ddp": 15, "ilqr": 40, "fddp": 15, "ipopt": 30, "fatrop": 30}),
    Case(
        "least-squares", least_squares, None, {"ddp": 15, "ilqr": 40, "fddp": 15, "ipopt": 30, "fatrop": 30, "sqp": 100}
    ),
    Case(
        "parameters", with_parameters, None, {"ddp": 15, "ilqr": 40, "fddp": 15, "ipopt": 30, "fatrop": 30, "sqp": 100}
    ),
    Case("reference", time_varying_parameters, None, ONE_STEP),
    Case("varying-sizes", varying_sizes, None, {"ddp": 15, "ilqr": 60, "ipopt": 30, "fatrop": 30, "sqp": 100}),
    Case("black-box", black_box, None, {"ddp": 15, "ilqr": 30, "fddp": 20}),
    Case(
        "hand-written", hand_written, None, {"ddp": 15, "ilqr": 40, "fddp": 15, "ipopt": 30, "fatrop": 30, "sqp": 100}
    ),
)
BY_NAME = {case.name: case for case in CASES}


def runs(*solvers: str) -> list[tuple[Case, str]]:
    """Return every (case, solver name) that must converge, for the solvers asked."""
    return [(case, solver) for case in CASES for solver in solvers if solver in case.budget]


def scalar(factor: float = 0.9) -> Problem:
    """A problem that compiles at once; each factor, to three digits, is another structure: by parameters not used."""
    return Problem.from_functions(
        dynamics=lambda x, u: factor * x + u,
        cost=lambda x, u: x[0] ** 2 + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0],
        horizon=5,
        control_size=1,
        parameters=np.zeros(round(1000 * factor)),
    )


GOOD: dict[str, Any] = {
    "dynamics": lambda x, u: m.stack([x[0] + u[0], x[1]]),
    "cost": lambda x, u: u[0] ** 2,
    "terminal_cost": lambda x: x[0] ** 2,
    "x0": [1.0, 0.0],
    "horizon": 5,
}


def declare(**changes: Any) -> Problem:
    """Return a small problem, changed where a test wants it."""
    return Problem.from_functions(**{**GOOD, **changes})


def no_minimum() -> Problem:
    """Return a problem whose cost falls for ever."""
    return Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: -u @ u,
        terminal_cost=lambda x: x[0],
        x0=[0.5],
        horizon=3,
        control_size=1,
    )


def blows_up() -> Problem:
    """Return a problem whose states leave the finite numbers without control."""
    return Problem.from_functions(
        dynamics=lambda x, u: x + 0.1 * x**3 + u,
        cost=lambda x, u: x[0] ** 2 + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[3.0],
        horizon=30,
        control_size=1,
    )

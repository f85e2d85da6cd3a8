"""Random constrained problems: a trajectory is drawn first, and rows are put around it, or where nothing can keep them.

    x' = A x + B u + ν(C x, u),   −1 ≤ u ≤ 1
    J = F h(x_T) + Σ h(x) + ½ r uᵀu,   h = ½ (x − g)ᵀ W (x − g) + c cos 2 x_1

The goal g is mostly outside of what the rows allow. All numbers are parameters, so that the draws of one kind (sizes,
horizon, ν and rows) share their graphs. Rows are

* bounds of some states at every stage,
* an inequality a·x + b·u + |x|²/10 ≤ d,
* an equality, the last control u_m = ½ sin(a·x),
* at the end some states fixed, or within 0.1, or |x_T − z|² ≤ 0.1.

One draw in ten is infeasible with a certificate: either the bounds of a state exclude every x_1 that the controls
inside their bounds lead to, which are an interval because x_1 is affine in u; or the end is farther away than
|A|, |B| and the largest |ν| reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise
from typing import Any

import numpy as np

import ocpkit.math as m
from benchmarks.robustness.family import Family, Instance
from ocpkit import Constraint, Problem
from ocpkit.boundary.arrays import Array

KINDS, DRAWS = 20, 10
GROUP = "random"
HORIZONS = (20, 30, 40, 50, 60)
LARGEST_STATE = 30.0
NONLINEARITIES: dict[str, tuple[Callable[[Any, Any], Any], float]] = {  # and the largest |ν|
    "linear": (lambda v, u: 0.0 * v, 0.0),
    "sine": (lambda v, u: 0.3 * m.sin(v), 0.3),
    "rational": (lambda v, u: 0.5 * v / (1.0 + v * v), 0.25),
    "bilinear": (lambda v, u: 0.2 * m.sin(v) * u[0], 0.2),
    "cubic": (lambda v, u: 0.02 * v * v * v, np.inf),
}
ENDS = ("free", "fixed", "box", "ball")
ATTEMPTS, DRIFT = 200, 0.1  # at infeasible draws whose x_0 keeps the bounds, which x_1 cannot


@dataclass(frozen=True)
class Kind:
    """What the draws of a family have in common."""

    index: int
    n: int
    m: int
    horizon: int
    nonlinearity: str
    bounded_states: tuple[int, ...]
    inequality: bool
    equality: bool
    end: str
    fixed: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.index:02d}-{self.nonlinearity}-{self.n}-{self.m}-{self.horizon}"

    @property
    def cuts(self) -> Array:
        """Where A, B, C, W, (r, F, c), a, b and g end in p; what follows is the middle of a ball at the end."""
        n, m = self.n, self.m
        return np.cumsum([n * n, n * m, n * n, n, 3, n, m, n])

    def parts(self, p: Any) -> list[Any]:
        """A, B, C, W, (r, F, c), a, b and g of p."""
        places = [0, *self.cuts.tolist()]
        pieces = [p[i:j] for i, j in pairwise(places)]
        shapes = ((self.n, self.n), (self.n, self.m), (self.n, self.n))
        return [piece.reshape(*shape) for piece, shape in zip(pieces, shapes)] + pieces[3:]


def families() -> Iterator[Family]:
    """Yield all kinds, each with its draws."""
    for index in range(KINDS):
        kind = draw_kind(index)
        yield Family(GROUP, kind.name, partial(template, kind), tuple(_instances(kind)))


def draw_kind(index: int) -> Kind:
    """Draw sizes and rows; the index decides everything."""
    rng = np.random.default_rng([index, 5])
    n = int(rng.integers(1, 7))
    size = int(rng.integers(1, min(n, 3) + 1))
    nonlinearity = list(NONLINEARITIES)[index % len(NONLINEARITIES)]
    unbounded = not np.isfinite(NONLINEARITIES[nonlinearity][1])
    bounded = rng.random() < 0.6 or unbounded
    end = str(rng.choice(ENDS[1:] if not bounded else ENDS))
    return Kind(
        index=index,
        n=n,
        m=size,
        horizon=int(rng.choice(HORIZONS)),
        nonlinearity=nonlinearity,
        bounded_states=tuple(sorted(rng.permutation(n)[: rng.integers(1, n + 1)].tolist())) if bounded else (),
        inequality=bool(rng.random() < 0.6),
        equality=size > 1 and bool(rng.random() < 0.6),
        end=end,
        fixed=tuple(sorted(rng.permutation(n)[: rng.integers(1, size + 1)].tolist())) if end != "free" else (),
    )


def template(kind: Kind) -> Problem:
    """Return a problem of the kind, all of whose numbers a draw replaces."""
    nonlinear, places, fixed = NONLINEARITIES[kind.nonlinearity][0], list(kind.bounded_states), list(kind.fixed)

    def step(x: Any, u: Any, p: Any) -> Any:
        A, B, C, *_ = kind.parts(p)
        return A @ x + B @ u + nonlinear(C @ x, u)

    def at_rest(x: Any, p: Any) -> Any:
        _, _, _, W, rest, _, _, goal = kind.parts(p)
        return m.dot(W * (x - goal), x - goal) / 2 + rest[2] * m.cos(2 * x[0])

    def cost(x: Any, u: Any, p: Any) -> Any:
        return at_rest(x, p) + kind.parts(p)[4][0] * m.dot(u, u) / 2

    rows = {
        "state bounds": (bool(places), lambda x, u, p: x[places]),
        "inequality": (
            kind.inequality,
            lambda x, u, p: m.dot(kind.parts(p)[5], x) + m.dot(kind.parts(p)[6], u) + m.dot(x, x) / 10,
        ),
        "equality": (kind.equality, lambda x, u, p: u[kind.m - 1] - _last_control(kind, x, p)),
    }
    ends: dict[str, Callable[[Any, Any], Any]] = {
        "fixed": lambda x, p: x[fixed],
        "box": lambda x, p: x[fixed],
        "ball": lambda x, p: m.dot(x - p[-kind.n :], x - p[-kind.n :]),
    }
    return Problem.from_functions(
        dynamics=step,
        cost=cost,
        terminal_cost=lambda x, p: kind.parts(p)[4][1] * at_rest(x, p),
        x0=np.zeros(kind.n),
        horizon=kind.horizon,
        control_size=kind.m,
        control_bounds=(-1.0, 1.0),
        constraints=tuple(Constraint(g, -1.0, 0.0, name) for name, (there, g) in rows.items() if there),
        terminal_constraints=tuple(Constraint(g, -1.0, 0.0, "end") for end, g in ends.items() if end == kind.end),
        parameters=np.zeros(int(kind.cuts[-1]) + kind.n),
        name=kind.name,
    )


def _last_control(kind: Kind, x: Any, p: Any) -> Any:
    """What the equality asks of u_m."""
    return 0.5 * m.sin(m.dot(kind.parts(p)[5], x))


@dataclass(frozen=True)
class Draw:
    """Numbers of a problem, and the trajectory x (T + 1, n), u (T, m) that its rows were put around."""

    kind: Kind
    p: Array
    x: Array
    u: Array
    rows: dict[str, tuple[Any, Any]]
    infeasible: bool

    def change(self, problem: Problem) -> Problem:
        """Return the template with these numbers."""

        def bounded(constraints: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
            return tuple(
                replace(each, lower=self.rows[each.name][0], upper=self.rows[each.name][1]) for each in constraints
            )

        stage = replace(problem.stages[0], constraints=bounded(problem.stages[0].constraints))
        return problem.replace(
            stages=(stage,) * problem.horizon,
            terminal_constraints=bounded(problem.terminal_constraints),
            x0=self.x[0],
            parameters=self.p,
        )


def _instances(kind: Kind) -> Iterator[Instance]:
    for k in range(DRAWS):
        yield Instance(str(k), partial(_drawn, kind, k), infeasible=is_infeasible(kind, k))


def _drawn(kind: Kind, number: int, problem: Problem) -> Problem:
    return draw(kind, number).change(problem)


def is_infeasible(kind: Kind, number: int) -> bool:
    """Whether this draw is one of those that are."""
    return number == kind.index % DRAWS


def draw(kind: Kind, number: int) -> Draw:
    """Draw the numbers; the kind and the number decide everything."""
    rng, infeasible = np.random.default_rng([kind.index, number, 6]), is_infeasible(kind, number)
    for attempt in count():
        p = _parameters(rng, kind)
        x, u = _trajectory(rng, kind, p)
        fine = np.abs(x).max() <= LARGEST_STATE
        wanted = infeasible and kind.bounded_states and attempt < ATTEMPTS
        if fine and not (wanted and _driven(kind, p, x[0]) is None):
            break
    p[-kind.n :] = x[-1]
    rows = _rows(rng, kind, p, x, u)
    if infeasible:
        rows |= _impossible(rng, kind, p, x[0])
    return Draw(kind, p, x, u, rows, infeasible)


def _parameters(rng: np.random.Generator, kind: Kind) -> Array:
    n, size = kind.n, kind.m
    A = np.eye(n) + 0.3 * rng.normal(size=(n, n))
    A *= rng.uniform(0.8, 1.1) / np.abs(np.linalg.eigvals(A)).max()
    B, C = 0.5 * rng.normal(size=(n, size)), rng.normal(size=(n, n)) / np.sqrt(n)
    W, rest = 10 ** rng.uniform(-1, 1, n), [10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-1, 2), rng.choice([0.0, 0.5])]
    rows, goal = rng.normal(size=n + size), 2.0 * rng.normal(size=n)
    return np.concatenate([A.ravel(), B.ravel(), C.ravel(), W, rest, rows, goal, np.zeros(n)])


def _trajectory(rng: np.random.Generator, kind: Kind, p: Array) -> tuple[Array, Array]:
    """Draw controls inside 0.8 of their bounds that keep the equality, and go along."""
    A, B, C, *_ = kind.parts(p)
    x, controls = [rng.normal(size=kind.n)], []
    for _ in range(kind.horizon):
        u = rng.uniform(-0.8, 0.8, kind.m)
        if kind.equality:
            u[-1] = _last_control(kind, x[-1], p)
        controls.append(u)
        x.append(A @ x[-1] + B @ u + NONLINEARITIES[kind.nonlinearity][0](C @ x[-1], u))
        if np.abs(x[-1]).max() > LARGEST_STATE:
            return np.array(x), np.array(controls)
    return np.array(x), np.array(controls)


def _rows(rng: np.random.Generator, kind: Kind, p: Array, x: Array, u: Array) -> dict[str, tuple[Any, Any]]:
    """Return bounds of all rows, with a little room where they are not equalities."""
    along, (*_, a, b, _) = x[:-1][:, list(kind.bounded_states)], kind.parts(p)
    room = rng.uniform(0.02, 0.3) * (np.ptp(along, axis=0) + 0.1)
    mixed = x[:-1] @ a + u @ b + np.sum(x[:-1] ** 2, axis=1) / 10
    last = x[-1, list(kind.fixed)]
    end = {"fixed": (last, last), "box": (last - 0.1, last + 0.1), "ball": (-np.inf, 0.1), "free": (0, 0)}[kind.end]
    return {
        "state bounds": (along.min(axis=0) - room, along.max(axis=0) + room),
        "inequality": (-np.inf, mixed.max() + rng.uniform(0.02, 0.3) * np.ptp(mixed)),
        "equality": (0.0, 0.0),
        "end": end,
    }


def _impossible(rng: np.random.Generator, kind: Kind, p: Array, x0: Array) -> dict[str, tuple[Any, Any]]:
    """Return bounds of a row that nothing can keep."""
    excess = 10 ** rng.uniform(-1, 0.5)
    if kind.bounded_states:
        places, (least, most) = list(kind.bounded_states), after_one_step(kind, p, x0)
        driven = _driven(kind, p, x0)
        if driven is None:
            return {"state bounds": (most[places] + excess, most[places] + excess + 10.0)}
        lower, upper = np.full(len(places), -LARGEST_STATE), np.full(len(places), LARGEST_STATE)
        i = places[driven]
        if least[i] > x0[i]:
            upper[driven] = 0.5 * (x0[i] + least[i])
        else:
            lower[driven] = 0.5 * (x0[i] + most[i])
        return {"state bounds": (lower, upper)}
    far = farthest(kind, p, x0)[list(kind.fixed)] * (1 + excess)
    if kind.end == "ball":  # whose middle is x_T of the trajectory that was drawn, and moves away
        p[-kind.n :] = farthest(kind, p, x0) + 1.0 + excess
        return {}
    return {"end": (far, far) if kind.end == "fixed" else (far, far + 0.2)}


def _driven(kind: Kind, p: Array, x0: Array) -> int | None:
    """Which of the bounded states moves by `DRIFT` in the first step, whatever is done."""
    least, most = after_one_step(kind, p, x0)
    drift = np.maximum(least - x0, x0 - most)[list(kind.bounded_states)]
    return int(drift.argmax()) if drift.max() > DRIFT else None


def after_one_step(kind: Kind, p: Array, x0: Array) -> tuple[Array, Array]:
    """Least and largest x_1 over all controls inside their bounds, in which it is affine."""
    A, B, C, *_ = kind.parts(p)

    def step(u: Array) -> Array:
        return A @ x0 + B @ u + NONLINEARITIES[kind.nonlinearity][0](C @ x0, u)

    middle = step(np.zeros(kind.m))
    reach = np.abs([step(e) - middle for e in np.eye(kind.m)]).sum(axis=0)
    return middle - reach, middle + reach


def farthest(kind: Kind, p: Array, x0: Array) -> Array:
    """Bound of |x_T| (n,) over all controls inside their bounds."""
    A, B, *_ = (np.abs(part) for part in kind.parts(p)[:2])
    reach = np.abs(x0)
    for _ in range(kind.horizon):
        reach = A @ reach + B.sum(axis=1) + NONLINEARITIES[kind.nonlinearity][1]
    return reach

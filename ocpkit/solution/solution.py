"""Result of every solver: the trajectory, the policy around it, and an honest status."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit import moved
from ocpkit.boundary.arrays import Array, real_array
from ocpkit.boundary.atomic import write_atomically
from ocpkit.boundary.sizes import TooLarge, check_npz, read_bytes
from ocpkit.boundary.tables import Table, as_html, as_text
from ocpkit.errors import ProblemError
from ocpkit.problem.angles import difference
from ocpkit.recursion.policy import AffinePolicy
from ocpkit.solution.details import Details
from ocpkit.solution.history import History, Iteration, as_record, from_record
from ocpkit.solution.scaling import Scaling

Series = tuple[Array, ...]


class Status(Enum):
    """Why a solver stopped; the value is the sentence that a user reads."""

    CONVERGED = "converged: the optimality conditions hold to the tolerances"
    STALLED = (
        "stalled: no step of this solver lowers the cost any more, yet the optimality conditions do not hold; "
        "loosen the tolerance, or start elsewhere"
    )
    ITERATION_LIMIT = (
        "iteration limit: stopped before convergence; raise max_iterations or warm-start from this solution"
    )
    TIME_LIMIT = "time limit: stopped before convergence; raise time_limit or warm-start from this solution"
    INTERRUPTED = "interrupted: stopped from the keyboard; this is the best iterate so far"
    STOPPED = "stopped: a callback asked for it; this is the best iterate so far"
    SADDLE = (
        "stationary, not a minimum: the gradient vanishes and the curvature is negative, yet no step along it lowered "
        "the cost; start elsewhere"
    )
    INFEASIBLE = (
        "infeasible: the violation of the dynamics or constraints is stationary and not zero, so that no small change "
        "of the controls lowers it; check the model, the bounds and the guess"
    )
    GAVE_UP = (
        "gave up: the dynamics or constraints do not hold to the tolerance, and nothing shows that they cannot; start "
        "elsewhere, or rewrite rows whose gradient vanishes where they hold, such as |x|² = 0"
    )
    DIVERGED = "diverged: the iterates blew up; this is the last finite iterate. Start elsewhere or use another solver"
    INVALID_INPUT = (
        "invalid input: the model is not finite at the guess; give other controls, or a state guess to start from"
    )


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """State of a constrained solver beside its multipliers, so that the next solve can go on from there.

    Attributes
    ----------
    penalty
        ρ [natural unit of J per squared unit of the row].
    barrier
        μ [natural unit of J]; 0 without one.
    tolerance
        `gradient_tolerance` of the next inner solve.
    """

    penalty: float
    barrier: float
    tolerance: float

    def after(self, status: Status | None, *, penalty: float, barrier: float, tolerance: float) -> WarmStart:
        """Warm start of the next solve after one that began here: this ρ, where it has grown in vain."""
        in_vain = status in (Status.INFEASIBLE, Status.GAVE_UP, Status.DIVERGED, Status.INVALID_INPUT)
        return WarmStart(penalty=self.penalty if in_vain else penalty, barrier=barrier, tolerance=tolerance)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """A trajectory with its locally optimal feedback policy; equal only to itself.

    Attributes
    ----------
    states, controls
        T + 1 states and T controls: arrays (T + 1, n), (T, m), or tuples of vectors where sizes change.
    feedforward, feedback_gains
        k (T, m) and K (T, m, n) at the returned trajectory; None from solvers without a policy.
    value_gradients, value_hessians
        V_x (T + 1, n), the co-states, and V_xx (T + 1, n, n); None where the solver has none.
    multipliers
        y of the constraints, T + 1 vectors: at a stage first its constraints as declared, then its controls that have a
        bound. Positive where an upper bound is active, negative at a lower one: ∇J + Σ yᵀ ∇g = 0.
    cost
        J of the trajectory.
    status
        Why the solver stopped.
    history
        One `Iteration` of the solver's kind per iteration, the guess first.
    details
        What else the solver has to say: engine and why, reason of a failure, worst violation, seconds of phases.
    scaling
        Natural units in which the solver measured its tolerances; None where it took the user's, and from DDP and its
        kin, which measure anew at each iterate.
    angles
        Indices of states that are angles, as the problem declares them.
    warm_start
        Penalty, barrier and tolerance from which a solve with this solution as its guess goes on; None from solvers
        without them.
    """

    problem_name: str
    solver: str
    states: Any
    controls: Any
    cost: float
    status: Status
    history: Sequence[Any]
    feedforward: Any = None
    feedback_gains: Any = None
    value_gradients: Any = None
    value_hessians: Any = None
    multipliers: Series | None = None
    seconds: float = 0.0
    details: Details = field(default_factory=Details)
    scaling: Scaling | None = None
    angles: tuple[int, ...] = ()
    warm_start: WarmStart | None = None

    @property
    def success(self) -> bool:
        """Whether the solver converged."""
        return self.status is Status.CONVERGED

    @property
    def iterations(self) -> int:
        """Number of iterations after the guess."""
        if isinstance(self.history, History):  # whose indices are places
            return max(len(self.history) - 1, 0)
        return self.last_iteration.index

    @property
    def last_iteration(self) -> Iteration:
        """Last line of the history; where a limit ended the solve before the first line, its cost alone."""
        return self.history[-1] if self.history else Iteration(index=0, cost=self.cost)

    def policy(self, t: int, x: ArrayLike) -> Array:
        """Feedback controller u = u_t + K_t (x − x_t) at stage t, angles in [−π, π); open loop without gains.

        Raises
        ------
        ProblemError
            If t is outside 0 … T-1 or x has the wrong shape.
        """
        if t not in range(len(self.controls)):
            raise ProblemError(f"stage {t} is outside the horizon 0 … {len(self.controls) - 1}")
        state = real_array(x, "the state")
        if state.shape != self.states[t].shape:
            raise ProblemError(f"state of shape {state.shape} at stage {t}, expected {self.states[t].shape}")
        apart = partial(difference, angles=self.angles)
        affine = AffinePolicy(self.states, self.controls, None, self.feedback_gains, apart)
        return np.array(affine.control(t, state))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one ``.npz`` file, atomically; `load` reads it back."""
        meta = {"problem_name": self.problem_name, "solver": self.solver, "cost": self.cost, "seconds": self.seconds}
        meta |= {"status": self.status.name, "details": self.details.as_record(), "history": as_record(self.history)}
        meta |= {"angles": self.angles}
        if self.warm_start is not None:
            meta["warm_start"] = asdict(self.warm_start)
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta))}
        for name in _ARRAYS:
            series = getattr(self, name)
            if isinstance(series, tuple):
                arrays |= {f"{name}/{t}": entry for t, entry in enumerate(series)}
            elif series is not None:
                arrays[name] = series
        if self.scaling is not None:
            arrays |= {f"scaling/{name}": value for name, value in self.scaling.flat().items()}
        content = io.BytesIO()  # NumPy 1 leaves its archive open where the disk is full
        np.savez_compressed(content, **arrays)
        write_atomically(Path(path), lambda stream: stream.write(content.getbuffer()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Solution:
        """Read a solution written by `save`; nothing in the file is ever run.

        Raises
        ------
        OSError
            If there is no such file, or it cannot be read.
        ProblemError
            If the file is damaged, not a solution, or claims more than fits into memory.
        """
        try:
            content = read_bytes(Path(path))
        except TooLarge as error:
            raise ProblemError(f"{path} is too large: {error}") from error
        try:
            if not content.startswith(b"PK"):  # of anything else NumPy says that it would need pickle
                raise ValueError("it is no .npz archive")
            check_npz(stream := io.BytesIO(content))
            with np.load(stream, allow_pickle=False) as data:
                meta = json.loads(str(data["meta"]))
                series = {name: _read_series(data, name) for name in _ARRAYS}
                scales = {key.partition("/")[2]: data[key] for key in data.files if key.startswith("scaling/")}
                series["scaling"] = Scaling.from_flat(scales) if scales else None
                known = {"meta", *(name for name, value in series.items() if value is not None)}
                unknown = {key.partition("/")[0] for key in data.files} - known
            if unknown or not {"states", "controls"} <= known:  # the names of a .zip have no checksum
                raise ValueError(f"it holds {sorted(known | unknown)}")
            meta["status"], meta["angles"] = Status[meta["status"]], tuple(meta.get("angles", ()))
            meta["details"] = Details.from_record(meta["details"], len(series["controls"]))
            meta["history"] = from_record(meta["history"], meta["solver"])
            if "warm_start" in meta:
                meta["warm_start"] = WarmStart(**meta["warm_start"])
            return cls(**meta, **series)
        except Exception as error:  # whatever a damaged file makes its readers raise
            raise ProblemError(f"{path} is not a solution saved by ocpkit, or it is damaged: {error}") from error

    plot = moved.method("ocpkit.plotting.plot", "plot_solution")
    animate = moved.method("ocpkit.plotting.plot", "animate")

    def _rows(self) -> Table:
        """Summary for a reader."""
        last = self.last_iteration
        return [
            ("problem", f"{self.problem_name} (horizon {len(self.controls)})"),
            ("solver", self.solver),
            ("status", self.status.value),
            ("cost J", f"{self.cost:.10g}"),
            ("iterations", str(self.iterations)),
            ("gradient |Qu|", f"{last.gradient_norm:.2e}"),
            ("gap", f"{last.infeasibility:.2e}"),
            ("seconds", f"{self.seconds:.3f}"),
            *self.details.words().items(),
        ]

    def __str__(self) -> str:
        return as_text(self._rows())

    def __repr__(self) -> str:
        outcome, plural = self.status.name.lower().replace("_", " "), "s" * (self.iterations != 1)
        return (
            f"<Solution of {self.problem_name!r} by {self.solver}: {outcome}, J = {self.cost:.6g}, "
            f"{self.iterations} iteration{plural}, horizon {len(self.controls)}>"
        )

    def _repr_html_(self) -> str:
        return as_html(self._rows())


_ARRAYS = ("states", "controls", "feedforward", "feedback_gains", "value_gradients", "value_hessians", "multipliers")


def _read_series(data: Any, name: str) -> Any:
    if name in data:
        return data[name]
    count = sum(key.startswith(f"{name}/") for key in data.files)
    return tuple(data[f"{name}/{t}"] for t in range(count)) or None


def as_series(entries: Sequence[Array] | None) -> Any:
    """Stack equal shapes into one array; keep a tuple where they differ."""
    if entries is None or isinstance(entries, np.ndarray):
        return entries
    same = len({np.shape(entry) for entry in entries}) == 1
    return np.stack(entries) if same else tuple(np.asarray(entry) for entry in entries)

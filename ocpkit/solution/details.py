"""Details of a solve beside its numbers, as records; words for people are made of them at the edge.

`Details` holds the engine, the reason of a failure, the worst violation, counts, and the seconds of each phase.
`Details.words` is what is printed, and what an older version kept instead: `Details.from_words` reads that.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from ocpkit.problem.constraint_rows import ConstraintRows

_MSA = ": MSA ignores how new controls move the states; use 'emsa' or 'ddp'"
_CLAIMED = "{plugin} calls this point optimal, but "


class Failure(Enum):
    """Cause of a failure, where its status leaves that open; the value is the sentence that a user reads."""

    NOT_FINITE = "derivatives are not finite at stage {stage}"
    NOT_POSITIVE_DEFINITE = "Q_uu is not positive definite at stage {stage}"
    START_BREAKS_ROW = "x0 violates {row!r} at stage {stage} by {amount:.3g}, which no control can change"
    SATURATED = (
        "the gradient vanishes at J = {amount:.8g}, where controls have saturated or J has a saddle, for the last of "
        "many times; start elsewhere, or use 'ddp'"
    )
    CONTROLS_BLEW_UP = "the controls blew up" + _MSA
    COST_BLEW_UP = "the cost blew up" + _MSA
    NO_BETTER_COST = "no better cost in {iterations} iterations" + _MSA
    LINEAR_HAMILTONIAN = "the Hamiltonian is linear in a control without bounds: it has no minimum" + _MSA
    HAMILTONIAN_BLEW_UP = "the minimization of the Hamiltonian left the finite numbers" + _MSA
    TOO_COARSE = _CLAIMED + "in units that are too coarse for it"
    CAN_FALL = _CLAIMED + "J can fall from there"
    NEGATIVE_CURVATURE = _CLAIMED + "its curvature is negative"
    NOT_CONFIRMED = _CLAIMED + "the limit leaves nothing to confirm it with"
    BOTTOMLESS = _CLAIMED + "J falls beyond all numbers from there"
    PLUGIN_STEP = "a step inside the plugin failed; for sqp try convexify='none' or 'regularize'"
    PLUGIN_STATUS = "{plugin} says {answer}"
    OTHER = "{answer}"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A failure with what its sentence needs.

    Attributes
    ----------
    stage
        Where; T is the end.
    row
        Name of the row that x0 breaks.
    amount
        Distance of x0 from its bounds [units of the row], or J.
    iterations
        Iterations in vain.
    plugin, answer
        CasADi's name of the plugin, and the status or the message that it returned.
    """

    failure: Failure
    stage: int | None = None
    row: str = ""
    amount: float = 0.0
    iterations: int = 0
    plugin: str = ""
    answer: str = ""

    def __str__(self) -> str:
        return self.failure.value.format(**{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_words(cls, words: str) -> Reason:
        """Reason of what `str` returned."""
        for failure in Failure:
            if found := re.fullmatch(_pattern(failure.value), words, re.DOTALL):
                kinds = {"stage": int, "iterations": int, "amount": float}
                return cls(
                    failure=failure, **{name: kinds.get(name, str)(text) for name, text in found.groupdict().items()}
                )
        raise AssertionError("OTHER fits everything")


def _pattern(template: str) -> str:
    """Regular expression of a sentence with fields."""
    from string import Formatter

    pattern = ""
    for literal, name, _, conversion in Formatter().parse(template):
        quote = "'" if conversion == "r" else ""
        pattern += re.escape(literal) + (f"{quote}(?P<{name}>.+?){quote}" if name else "")
    return pattern


@dataclass(frozen=True, kw_only=True)
class WorstRow:
    """Largest violation of a row, or defect of the dynamics, at the end of a solve.

    Attributes
    ----------
    amount
        Distance from the bounds, or |f − x'| [units of the row or state].
    row
        Name of the row; empty for a defect, and where nothing is violated.
    stage
        Where; T is the end. None where nothing is violated.
    state
        Index of the state with the defect; None for a row.
    end
        Whether `stage` is the end.
    """

    amount: float
    row: str = ""
    stage: int | None = None
    state: int | None = None
    end: bool = False

    @classmethod
    def of(cls, rows: Sequence[ConstraintRows], amount: float, stage: int, i: int) -> WorstRow:
        """Record of row i of a stage (T: the end), by that amount; 0 where nothing is violated."""
        if not amount > 0:  # also where it is not a number
            return cls(amount=amount)
        return cls(amount=amount, row=rows[stage].names[i], stage=stage, end=stage == len(rows) - 1)

    def __str__(self) -> str:
        if self.stage is None:
            return f"{self.amount:.2e}"
        where = f"{self.row!r} at " + ("the end" if self.end else f"stage {self.stage}")
        if self.state is not None:
            where = f"the dynamics of stage {self.stage}, state {self.state}"
        return f"{self.amount:.2e} (largest: {where})"

    @classmethod
    def from_words(cls, words: str, horizon: int) -> WorstRow:
        """Record of what `str` returned for a solution of this horizon."""
        amount, _, where = words.partition(" ")
        if found := re.fullmatch(r"\(largest: the dynamics of stage (\d+), state (\d+)\)", where):
            return cls(amount=float(amount), stage=int(found[1]), state=int(found[2]))
        if found := re.fullmatch(r"\(largest: (['\"])(.*)\1 at (?:the end|stage (\d+))\)", where):
            stage = horizon if found[3] is None else int(found[3])
            return cls(amount=float(amount), row=found[2], stage=stage, end=found[3] is None)
        return cls(amount=float(amount))


@dataclass(frozen=True, kw_only=True)
class PhaseTimes:
    """Seconds that a solve has spent in its phases; None where the engine does not measure them, as inside C.

    Attributes
    ----------
    derivatives
        Expansion along trajectories; on the virtual machine that of the stages is part of `backward`.
    backward
        Backward passes.
    forward
        Forward passes with the first step size.
    line_search
        Forward passes with smaller ones.
    trace
        Before the first iteration: tracing the model, choosing and loading an engine.
    generate, compile
        Deriving and writing the C of the engine, and compiling it, here or in a process beside; None where it was
        loaded ready, or not used.
    """

    derivatives: float | None = None
    backward: float | None = None
    forward: float | None = None
    line_search: float | None = None
    trace: float | None = None
    generate: float | None = None
    compile: float | None = None

    def __add__(self, other: PhaseTimes) -> PhaseTimes:
        """Seconds of two solves; building an engine counts once."""
        both = {name: _sum(getattr(self, name), getattr(other, name)) for name in PHASES}
        built = self if other.compile is None else other
        return PhaseTimes(**both, generate=built.generate, compile=built.compile)


PHASES = ("derivatives", "backward", "forward", "line_search", "trace")


def _sum(a: float | None, b: float | None) -> float | None:
    return a if b is None else b if a is None else a + b


class _Words(Mapping[str, str]):
    """Access by key, as to the sentences that an older version kept; for one version."""

    def words(self) -> dict[str, str]:
        """Return what is printed."""
        raise NotImplementedError

    def _deprecated(self) -> dict[str, str]:
        advice = "Solution.details is a record: use its attributes, or details.words() for what is printed"
        warnings.warn(advice, DeprecationWarning, stacklevel=3)
        return self.words()

    def __getitem__(self, key: str) -> str:
        return self._deprecated()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._deprecated())

    def __len__(self) -> int:
        return len(self._deprecated())


@dataclass(frozen=True, kw_only=True)
class Details(_Words):
    """Details of a solve beside its numbers.

    Attributes
    ----------
    engine, why
        What computed the sweeps, ``"numpy"``, ``"vm"``, ``"c"`` or ``"casadi …"``, and why it.
    reason
        What a solve failed by; None where the status says it all.
    violation
        The worst row or defect; None from solvers without rows.
    inner_iterations
        Iterations of all inner solves; None without these.
    cost_without_noise
        J of the states and controls with ε = 0; None where J is that.
    stationary_points_left
        Stationary points that were no minima, which the solve went on from.
    seconds
        Seconds of each phase.
    notes
        What else a solver of one's own wants printed, by name.
    """

    engine: str = ""
    why: str = ""
    reason: Reason | None = None
    violation: WorstRow | None = None
    inner_iterations: int | None = None
    cost_without_noise: float | None = None
    stationary_points_left: int = 0
    seconds: PhaseTimes = PhaseTimes()
    notes: Mapping[str, str] = field(default_factory=dict)

    def words(self) -> dict[str, str]:
        """Return what is printed: names and sentences, without the seconds."""
        engine = f"{self.engine}: {self.why}" if self.why else self.engine
        cost, left = self.cost_without_noise, self.stationary_points_left
        found = {
            "engine": engine or None,
            "reason": self.reason,
            "violation": self.violation,
            "inner iterations": self.inner_iterations,
            "cost without noise": None if cost is None else f"{cost:.10g}",
            "stationary points left": left or None,
        }
        return {name: str(value) for name, value in found.items() if value is not None} | dict(self.notes)

    def as_record(self) -> dict[str, Any]:
        """Return names and numbers, for a file."""
        record = asdict(self)
        if self.reason is not None:
            record["reason"]["failure"] = self.reason.failure.name
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any], horizon: int) -> Details:
        """Details of what `as_record` returned, or of the sentences that an older version wrote."""
        if "seconds" not in record:
            return cls.from_words(record, horizon)
        parts = dict(record) | {"seconds": PhaseTimes(**record["seconds"])}
        if record["reason"] is not None:
            parts["reason"] = Reason(**record["reason"] | {"failure": Failure[record["reason"]["failure"]]})
        if record["violation"] is not None:
            parts["violation"] = WorstRow(**record["violation"])
        return cls(**parts)

    @classmethod
    def from_words(cls, words: Mapping[str, str], horizon: int) -> Details:
        """Details of what `words` returned for a solution of this horizon."""
        engine, _, why = words.get("engine", "").partition(": ")
        read: dict[str, Any] = {"engine": engine, "why": why}
        readers: dict[str, Any] = {
            "reason": Reason.from_words,
            "violation": lambda text: WorstRow.from_words(text, horizon),
            "inner iterations": int,
            "cost without noise": float,
            "stationary points left": int,
        }
        read |= {name.replace(" ", "_"): readers[name](text) for name, text in words.items() if name in readers}
        notes = {name: text for name, text in words.items() if name != "engine" and name not in readers}
        return cls(**read, notes=notes)

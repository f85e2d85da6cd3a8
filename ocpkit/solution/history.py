"""Iterations of a solve: one record per kind of solver, kept as rows of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np

from ocpkit.boundary.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One line of a solver's history: what lines of all solvers have; each kind adds its own columns.

    Attributes
    ----------
    index
        0 is the guess itself.
    cost
        J after the iteration.
    expected_decrease, actual_decrease
        Predicted by the model for the step taken, and achieved [J] (of the merit function while gaps are open).
    gradient_norm
        max_t ‖Q_u + y‖_∞ at the new iterate, y the multipliers of the control bounds [J per unit of control].
    step_size
        α of the line search; 0 if no step was accepted.
    seconds
        Wall-clock time since the start.
    """

    index: int
    cost: float
    expected_decrease: float = 0.0
    actual_decrease: float = 0.0
    gradient_norm: float = float("nan")
    step_size: float = 0.0
    seconds: float = 0.0

    @property
    def infeasibility(self) -> float:
        """Infeasibility of dynamics and rows, in the measure of the method; 0 where it keeps them."""
        return 0.0

    @property
    def gap(self) -> float:
        """Deprecated, but for `DDPIteration`: `violation`."""
        return self._renamed("gap", "violation")

    @property
    def regularization(self) -> float:
        """Deprecated, but for `DDPIteration`: `penalty`."""
        return self._renamed("regularization", "penalty")

    def _renamed(self, old: str, new: str) -> float:
        kind = type(self).__name__
        instead = f"it is called {new!r}" if hasattr(self, new) else "its solver has none"
        warnings.warn(f"{kind}.{old} is deprecated: {instead}", DeprecationWarning, stacklevel=3)
        return float(getattr(self, new, 0.0))


@dataclass(frozen=True, kw_only=True)
class DDPIteration(Iteration):
    """One line of DDP and its kin, ILQG included.

    Attributes
    ----------
    regularization
        Damping μ that was used, which has no unit.
    gap
        max_t ‖f(x_t, u_t) − x_{t+1}‖_∞ in the user's units.
    """

    regularization: float = 0.0
    gap: float = 0.0

    @property
    def infeasibility(self) -> float:
        return self.gap


@dataclass(frozen=True, kw_only=True)
class OuterIteration(Iteration):
    """One outer line of the augmented Lagrangian or of the interior point.

    Attributes
    ----------
    penalty
        ρ for the next inner solve [natural unit of J per squared unit of the row].
    barrier
        μ for the next inner solve [natural unit of J]; 0 without one.
    inner_iterations
        Iterations of this line's inner solve.
    violation
        Largest violation of a row [natural unit of the row].
    """

    penalty: float = 0.0
    barrier: float = 0.0
    inner_iterations: int = 0
    violation: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner_iterations", int(self.inner_iterations))  # a row's numbers are floats

    @property
    def infeasibility(self) -> float:
        return self.violation


@dataclass(frozen=True, kw_only=True)
class InteriorIteration(Iteration):
    """One line of the primal-dual interior point; `gradient_norm` is that of its Lagrangian, in natural units.

    Attributes
    ----------
    damping
        Added to the Hessian so that the step leads to a minimum [natural units].
    barrier
        μ [natural unit of J at the start].
    violation
        Largest gap of the dynamics or violation of a row [natural units].
    restoring
        1 while only the violation is lowered.
    """

    damping: float = 0.0
    barrier: float = 0.0
    violation: float = 0.0
    restoring: float = 0.0

    @property
    def infeasibility(self) -> float:
        return self.violation


@dataclass(frozen=True, kw_only=True)
class PenaltyIteration(Iteration):
    """One line of E-MSA.

    Attributes
    ----------
    penalty
        ρ of the augmented Hamiltonian that was used; in the guess's line 0.
    """

    penalty: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NLPIteration(Iteration):
    """One line of a solver of nonlinear programs.

    Attributes
    ----------
    violation
        Largest gap of the dynamics or violation of a row, in natural units (see `ocpkit.solution.scaling`).
    """

    violation: float = 0.0

    @property
    def infeasibility(self) -> float:
        return self.violation


_KINDS = (Iteration, DDPIteration, OuterIteration, InteriorIteration, PenaltyIteration, NLPIteration)
KINDS = {kind.__name__: kind for kind in _KINDS}
_OUTER: dict[str, type[Iteration]] = dict.fromkeys(("AugmentedLagrangian", "InteriorPoint"), OuterIteration)
_NLP = ("IPOPT", "Fatrop", "SQP")
_FIRST_ORDER = {"EMSA": PenaltyIteration, "MSA": Iteration, "GradientDescent": Iteration}
OLD_KINDS: dict[str, type[Iteration]] = _OUTER | dict.fromkeys(_NLP, NLPIteration) | _FIRST_ORDER
"""Kinds of lines by solver, for files that an older version has written; DDP's where none is named."""
OLD_COLUMNS = {"gap": "violation", "regularization": "penalty"}


_COLUMNS = dict[type[Iteration], tuple[str, ...]]()


def columns(kind: type[Iteration]) -> tuple[str, ...]:
    """Names of a kind's numbers, without the index."""
    if kind not in _COLUMNS:  # a solve in C takes as long as asking for a few dozen fields
        _COLUMNS[kind] = tuple(field.name for field in fields(kind))[1:]
    return _COLUMNS[kind]


_NO_ROWS = np.empty((0, 0))


class History(Sequence[Any]):
    """The iterations of a solve; kept as rows of numbers, made into records when they are looked at.

    Attributes
    ----------
    kind
        Of its lines, that of the first one.
    """

    def __init__(self, lines: Iterable[Iteration] = ()) -> None:
        self.kind: type[Iteration] = Iteration
        self._rows, self._count = _NO_ROWS, 0
        for line in lines:
            self.append(line)

    def append(self, line: Iteration) -> None:
        """Add one iteration; its index is its place.

        Raises
        ------
        TypeError
            If it is of another kind than those before.
        """
        row = self.reserve(1, type(line))[0]
        row[:] = [getattr(line, name) for name in columns(self.kind)]
        self.grow(1)

    def reserve(self, count: int, kind: type[Iteration]) -> Array:
        """Return at least `count` free rows of the kind's `columns`, to be written and then counted by `grow`."""
        if not self._count:
            self.kind, self._rows = kind, np.empty((count, len(columns(kind))))
        elif kind is not self.kind:
            raise TypeError(f"a {kind.__name__} cannot follow lines of kind {self.kind.__name__}")
        elif self._count + count > len(self._rows):
            more = max(count, len(self._rows))
            self._rows = np.concatenate([self._rows[: self._count], np.empty((more, len(columns(kind))))])
        return self._rows[self._count :]

    def grow(self, count: int) -> None:
        """Count rows that were written to what `reserve` returned."""
        self._count += count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        places = range(self._count)[index]
        if isinstance(places, range):
            return tuple(self[place] for place in places)
        return self.kind(index=places, **dict(zip(columns(self.kind), self._rows[places].tolist())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return f"History({list(self)})"


def as_record(history: Sequence[Iteration]) -> dict[str, Any]:
    """Kind and lines of a history, for a file."""
    kind = type(history[0]) if history else Iteration
    known = next(each for each in kind.__mro__ if each.__name__ in KINDS)
    names = ("index", *columns(known))
    return {"kind": known.__name__, "lines": [{name: getattr(line, name) for name in names} for line in history]}


def from_record(record: Any, solver: str) -> History:
    """History of what `as_record` returned, or of the list of lines that an older version wrote for a solver."""
    if isinstance(record, Mapping):
        return History(KINDS[record["kind"]](**line) for line in record["lines"])
    kind = OLD_KINDS.get(solver, DDPIteration)
    return History(_from_old(kind, line) for line in record)


def _from_old(kind: type[Iteration], line: Mapping[str, Any]) -> Iteration:
    if kind is DDPIteration:
        return DDPIteration(**line)
    renamed = {OLD_COLUMNS.get(name, name): value for name, value in line.items()}
    own = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in renamed.items() if name in own or name not in OLD_COLUMNS.values()})

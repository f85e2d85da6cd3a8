"""The solvers by the names that the command line and the error messages use."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from typing import Any

from ocpkit.errors import ProblemError, unknown_name
from ocpkit.solvers.driver import Solver

_SOLVERS = {
    "auto": "ocpkit.control.automatic:Automatic",
    "ddp": "ocpkit.solvers.ddp.ddp:DDP",
    "ilqr": "ocpkit.solvers.ddp.ddp:ILQR",
    "fddp": "ocpkit.solvers.ddp.ddp:FDDP",
    "ilqg": "ocpkit.control.ilqg:ILQG",
    "al": "ocpkit.solvers.constrained.augmented_lagrangian:AugmentedLagrangian",
    "pdip": "ocpkit.solvers.primal_dual.primal_dual:PrimalDual",
    "ip": "ocpkit.solvers.constrained.interior_point:InteriorPoint",
    "msa": "ocpkit.solvers.first_order.pmp:MSA",
    "emsa": "ocpkit.solvers.first_order.pmp:EMSA",
    "gd": "ocpkit.solvers.first_order.gradient:GradientDescent",
    "ipopt": "ocpkit.solvers.nlp.nlp:IPOPT",
    "fatrop": "ocpkit.solvers.nlp.nlp:Fatrop",
    "sqp": "ocpkit.solvers.nlp.nlp:SQP",
}
_TOLERANCES = ("tolerance", "gradient_tolerance")


def names() -> tuple[str, ...]:
    """Names of all solvers."""
    return tuple(_SOLVERS)


def get(name: str) -> type[Solver]:
    """Return the class of a solver.

    Raises
    ------
    ProblemError
        If there is no solver of this name; says which ones are near.
    """
    if name not in _SOLVERS:
        raise unknown_name("solver", name, _SOLVERS)
    module, _, attribute = _SOLVERS[name].partition(":")
    solver: type[Solver] = getattr(import_module(module), attribute)
    return solver


def name_of(solver: str) -> str:
    """Name of a solver of ours by that of its class, as ``Solution.solver`` has it; others keep theirs."""
    found = (name for name, place in _SOLVERS.items() if place.endswith(f":{solver}"))
    return next(found, solver)


def summary(name: str) -> str:
    """Return the first line of a solver's documentation."""
    return (get(name).__doc__ or "").strip().partition("\n")[0]


def make(name: str, *, tolerance: float | None = None, **options: Any) -> Solver:
    """Build a solver; options that are None keep their defaults.

    Parameters
    ----------
    tolerance
        The solver's main tolerance, whatever its own name for it.
    **options
        Its options; those that it does not have itself go to its inner solver, such as the engine.

    Raises
    ------
    ProblemError
        For an unknown solver, an option it does not have, or a value it refuses.
    """
    solver = get(name)
    inner: Any = getattr(solver(), "inner", None)
    known = {field.name for field in fields(solver)}
    inside = {field.name for field in fields(inner)} if inner is not None else set[str]()
    if tolerance is not None:
        options[next((key for key in _TOLERANCES if key in known | inside), "tolerance")] = tolerance
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in known | inside:
            raise ProblemError(f"the solver {name!r} has no option {key!r}")
    own = {key: value for key, value in given.items() if key in known}
    if len(own) < len(given):
        own["inner"] = replace(inner, **{key: value for key, value in given.items() if key not in known})
    return solver(**own)

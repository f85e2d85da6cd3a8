"""Problem named on the command line: the name of a classic task, or `path/to/my_model.py:attribute`."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocpkit.errors import ProblemError, unknown_name
from ocpkit.problem.problem import Problem

if TYPE_CHECKING:
    from ocpkit.models.task import Task

DEFAULT_ATTRIBUTE = "problem"


@dataclass(frozen=True)
class Target:
    """A problem, what it is called, and its task if it has labels and a drawing."""

    name: str
    problem: Problem
    task: Task | None = None


def find(target: str, horizon: int | None = None) -> Target:
    """Build the problem that a command line names.

    Raises
    ------
    ProblemError
        If there is no such task, file or attribute, or it is not (and does not return) a problem.
    """
    path, attribute = _split(target)
    if path is not None:
        return _from_file(path, attribute, horizon)
    from ocpkit import models

    task = models.get(target)
    return Target(task.name, _call(task.build, horizon, f"task {target!r}"), task)


def _split(target: str) -> tuple[Path | None, str]:
    """Cut `my_model.py:attribute`; the attribute may be left out."""
    if target.endswith(".py"):
        return Path(target), DEFAULT_ATTRIBUTE
    path, colon, attribute = target.rpartition(":")
    return (Path(path), attribute) if colon else (None, "")


def _from_file(path: Path, attribute: str, horizon: int | None) -> Target:
    from ocpkit.models.task import Task

    what = f"{path}:{attribute}"
    with _errors_in(path):
        namespace = _run(path)
    if attribute not in namespace:
        raise unknown_name(f"attribute of {path}", attribute, (name for name in namespace if not name.startswith("_")))
    value = namespace[attribute]
    task = value if isinstance(value, Task) else None
    problem = task.build if task else value
    if isinstance(problem, Problem) and horizon not in (None, problem.horizon):
        raise ProblemError(f"{what} has the fixed horizon {problem.horizon}; make it a function of horizon")
    if callable(problem):
        with _errors_in(path):
            problem = _call(problem, horizon, what)
    if not isinstance(problem, Problem):
        kind = type(problem).__name__
        raise ProblemError(
            f"{what} gives an object of type {kind}, expected a Problem, a Task or a function returning a Problem"
        )
    name = path.stem if attribute == DEFAULT_ATTRIBUTE else attribute
    return Target(task.name if task else name, problem, task)


def _run(path: Path) -> dict[str, Any]:
    """Run a model file as Python runs a script: its own folder is where it imports from."""
    if not path.is_file():
        raise ProblemError(f"there is no model file {path}")
    spec = spec_from_file_location(f"ocpkit_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ProblemError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return vars(module)


@contextmanager
def _errors_in(path: Path) -> Iterator[None]:
    """Report whatever a model file raises as one line with its place."""
    try:
        yield
    except ProblemError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise ProblemError(f"{where}: {type(error).__name__}: {error}") from error


def _call(build: Callable[..., Any], horizon: int | None, what: str) -> Any:
    if horizon is None:
        return build()
    parameters = inspect.signature(build).parameters.values()
    if not any(p.name == "horizon" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise ProblemError(f"{what} takes no argument named horizon")
    return build(horizon=horizon)

"""All groups of problems by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

from benchmarks import suite
from benchmarks.robustness import chains, quadrotor, random_problems
from benchmarks.robustness.family import Family
from ocpkit import Problem, models


def _tasks() -> Iterator[Family]:
    for name in models.names():
        yield Family("tasks", name, partial(_task, name))


def _task(name: str) -> Problem:
    return models.get(name).build()


def _suite() -> Iterator[Family]:
    for name, problem in suite.PROBLEMS.items():
        yield Family("suite", name, partial(suite.discretized, problem))


GROUPS: dict[str, Callable[[], Iterator[Family]]] = {
    "tasks": _tasks,
    "suite": _suite,
    random_problems.GROUP: random_problems.families,
    chains.GROUP: chains.families,
    quadrotor.GROUP: quadrotor.families,
}


@cache
def families(group: str) -> tuple[Family, ...]:
    """Return the families of a group."""
    return tuple(GROUPS[group]())


def get(group: str, name: str) -> Family:
    """Return a family."""
    return next(family for family in families(group) if family.name == name)


def some(group: str, limit: int | None) -> list[Family]:
    """Return a group, or so many of its instances, spread evenly over it, in their families."""
    found, every = families(group), [(family, i) for family in families(group) for i in family.instances]
    if limit is None or limit >= len(every):
        return list(found)
    chosen = [every[k * len(every) // limit] for k in range(limit)]
    kept = [replace(family, instances=tuple(i for f, i in chosen if f is family)) for family in found]
    return [family for family in kept if family.instances]


def count(families: Sequence[Family]) -> int:
    """Number of instances."""
    return sum(len(family.instances) for family in families)

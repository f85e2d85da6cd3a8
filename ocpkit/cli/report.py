"""Printing of results: a short table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import typer

from ocpkit import registry
from ocpkit.solution.solution import Solution


def print_json(value: Any) -> None:
    """Print valid JSON: NaN and infinities, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def print_profile(solution: Solution) -> None:
    """Print the seconds of each phase; a dash for what did not happen or is not measured, as inside C."""
    seconds = solution.details.seconds
    rows = {
        "before the first iteration": seconds.trace,
        "derivatives": seconds.derivatives,
        "backward passes": seconds.backward,
        "forward passes": seconds.forward,
        "line search": seconds.line_search,
        "whole solve": solution.seconds,
        "beside: writing C": seconds.generate,
        "beside: compiling": seconds.compile,
    }
    for name, value in rows.items():
        typer.echo(f"{name:<28}" + ("–" if value is None else f"{value:.4f} s"))


def as_record(solution: Solution) -> dict[str, Any]:
    """Collect everything of a solution but its arrays (those go to ``--save``)."""
    return {
        "problem": solution.problem_name,
        "solver": registry.name_of(solution.solver),
        "horizon": len(solution.controls),
        "status": solution.status.name.lower(),
        "message": solution.status.value,
        "success": solution.success,
        "cost": solution.cost,
        "iterations": solution.iterations,
        "seconds": solution.seconds,
        "engine": solution.details.engine,
        "phase_seconds": asdict(solution.details.seconds),
        "details": solution.details.words(),
        "history": [asdict(iteration) for iteration in solution.history],
    }

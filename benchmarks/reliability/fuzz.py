"""Random solves, every claim of success held against an independent check."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.page import markdown
from benchmarks.reliability import kinds
from benchmarks.reliability.judge import objection
from benchmarks.reliability.problems import FAMILIES, Draw, draw
from ocpkit import DDP, ProblemError, Solution, Status
from ocpkit.batch import solve_batch
from ocpkit.solvers import registry

SOLVERS = ("ddp", "ilqr", "fddp", "al", "gd", "ipopt")
OTHERS = ("ip", "msa", "emsa", "batch")
CONSTRAINED = ("al", "ip", "ipopt")
BATCH = 3
ENGINES = ("numpy", "vm", "c")
COMPILED = ("smooth", "undefined", "jumps", "saddle", "units")  # families of one size that also run in C; each takes a compiler's second
LIMITS = {"max_iterations": 100, "time_limit": 60.0}
FAILURES = ("WRONG", "NOT INFEASIBLE", "CRASH", "HUNG")
LONGEST = 30.0  # processor seconds of a solve beyond which it counts as hung


@dataclass(frozen=True)
class Outcome:
    """What one random solve came to.

    Attributes
    ----------
    verdict
        The status's name, ``"CRASH"``, ``"HUNG"``, ``"WRONG"`` for a claim that did not hold, or ``"REFUSED"``.
    note
        Why it is a crash or wrong.
    """

    seed: int
    family: str
    solver: str
    verdict: str
    seconds: float
    note: str = ""


def solve_and_judge(seed: int) -> Outcome:
    """Draw a problem that breaks solvers, one of `SOLVERS` and an engine; solve; check what is claimed."""
    drawn, rng = draw(seed), np.random.default_rng([seed, 1])
    black_box = drawn.given is not drawn.clean
    solver = str(rng.choice(["ddp", "ilqr", "fddp", "gd"] if black_box else SOLVERS))
    return _judged(seed, drawn, solver, rng)


def solve_and_judge_others(seed: int) -> Outcome:
    """Do the same with one of `OTHERS`; a black box is for those that need no derivatives of it."""
    drawn, rng = draw(seed), np.random.default_rng([seed, 3])
    return _judged(seed, drawn, "msa" if drawn.given is not drawn.clean else str(rng.choice(OTHERS)), rng)


def solve_and_judge_kind(seed: int) -> Outcome:
    """Draw a problem of `kinds` and any solver that can treat it; solve; check what is claimed."""
    drawn, rng = kinds.draw(seed), np.random.default_rng([seed, 4])
    solvers = CONSTRAINED if drawn.family in kinds.CONSTRAINED else (*SOLVERS, *OTHERS)
    return _judged(seed, drawn, str(rng.choice(solvers)), rng)


def _judged(seed: int, drawn: Draw, solver: str, rng: np.random.Generator) -> Outcome:
    options: dict[str, Any] = dict(LIMITS)
    if solver in ("ddp", "ilqr", "fddp") and drawn.given is drawn.clean:
        shared = not (drawn.clean.stages[0].constraints or drawn.clean.terminal_constraints)
        compiled = shared and drawn.family in COMPILED and len(drawn.clean.x0) == 2
        options["engine"] = str(rng.choice(ENGINES if compiled else ENGINES[:2]))
    elif solver in ("al", "ip") and drawn.family in kinds.CONSTRAINED:
        options["engine"] = str(rng.choice(ENGINES[:2]))  # rows are traced anew with every seed
    began, notes = time.process_time(), list[str]()
    try:
        solutions = _batch(drawn, rng) if solver == "batch" else [registry.make(solver, **options).solve(drawn.given)]
        verdict = solutions[0].status.name
    except ProblemError as error:
        verdict, notes = "REFUSED", [str(error)]
    except Exception as error:
        verdict, notes = "CRASH", [f"{type(error).__name__}: {error}"]
    else:
        for solution in solutions:
            if note := objection(drawn, solution):
                verdict, notes = "NOT INFEASIBLE" if solution.status is Status.INFEASIBLE else "WRONG", [*notes, note]
            elif note := nonsense(solution):
                verdict, notes = "CRASH", [*notes, note]
    seconds = time.process_time() - began
    return Outcome(seed, drawn.family, solver, "HUNG" if seconds > LONGEST else verdict, seconds, "; ".join(notes))


def _batch(drawn: Draw, rng: np.random.Generator) -> list[Solution]:
    """Solve the problem from its guess and from others near it, by DDP at once."""
    problem, u = drawn.clean, np.stack(drawn.clean.controls)
    guesses = np.stack([u, *(u + 0.1 * drawn.units.controls * rng.normal(size=(BATCH - 1, *u.shape)))])
    found = solve_batch(problem, controls=guesses, solver=DDP(max_iterations=LIMITS["max_iterations"]))
    return [
        Solution(
            problem_name=problem.name,
            solver="batch",
            states=found.states[i],
            controls=found.controls[i],
            cost=float(found.cost[i]),
            status=found.status[i],
            history=(),
            feedback_gains=found.feedback_gains[i],
        )
        for i in range(BATCH)
    ]


def nonsense(solution: Solution) -> str:
    """Say what is not finite in an answer that claims nothing but must be usable, or nothing."""
    if solution.success or solution.status is Status.INVALID_INPUT:
        return ""
    finite = all(np.isfinite(x).all() for x in (*solution.states, *solution.controls)) and np.isfinite(solution.cost)
    return "" if finite else f"{solution.status.name} returns an iterate that is not finite"


def section(outcomes: Sequence[Outcome]) -> str:
    """Say what was done and what came out, as Markdown."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    failures = [
        f"seed {o.seed}, {o.family}, {o.solver}: {o.verdict}, {o.note}" for o in outcomes if o.verdict in FAILURES
    ]
    lines = [
        "## Random problems",
        f"Seeds {outcomes[0].seed} to {outcomes[-1].seed}, one solve each of at most {LIMITS['max_iterations']} "
        f"iterations. {counts['WRONG']} of {counts['CONVERGED'] + counts['WRONG']} claims of an optimum were wrong, "
        f"{counts['CRASH']} solves crashed or returned what is not finite, {counts['HUNG']} took more than "
        f"{LONGEST:.0f} s; the slowest took {slowest.seconds:.1f} s of the processor (seed {slowest.seed}).",
        table(outcomes, "solver", SOLVERS),
        table(outcomes, "family", [*FAMILIES, "failing at random"]),
        *failures,
    ]
    return "\n\n".join(lines)


def table(outcomes: Sequence[Outcome], by: str, rows: Sequence[str]) -> str:
    """Count verdicts by solver or family, as Markdown."""
    counts = Counter((getattr(outcome, by), outcome.verdict) for outcome in outcomes)
    verdicts = [status.name for status in Status] + ["REFUSED", *FAILURES]
    shown = [v for v in verdicts if v in FAILURES or any(counts[row, v] for row in rows)]
    lines = [[row, *(str(counts[row, v]) for v in shown)] for row in rows]
    total = ["all", *(str(sum(counts[row, v] for row in rows)) for v in shown)]
    return markdown([by, *(v.lower().replace("_", " ") for v in shown)], [*lines, total])

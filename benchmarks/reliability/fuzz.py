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
from benchmarks.reliability.judge import NOT_INFEASIBLE, UNDECIDED, WRONG, objection
from benchmarks.reliability.problems import FAMILIES, Draw, draw
from ocpkit import DDP, ProblemError, Solution, Status, registry
from ocpkit.solvers.ddp.solve_batch import solve_batch

SOLVERS = ("ddp", "ilqr", "fddp", "al", "gd", "ipopt")
OTHERS = ("ip", "msa", "emsa", "batch")
CONSTRAINED = ("al", "ip", "ipopt")
BATCH = 3
ENGINES = ("numpy", "vm", "c")
COMPILED = (
    "smooth",
    "undefined",
    "jumps",
    "saddle",
    "units",
)  # families of one size that also run in C; each takes a compiler's second
LIMITS = {"max_iterations": 100, "time_limit": 60.0}
FAILURES = (WRONG, NOT_INFEASIBLE, "CRASH", "HUNG")
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
            found, note = objection(drawn, solution)
            if found:
                verdict, notes = found, [*notes, note]
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


def section(outcomes: Sequence[Outcome], others: Sequence[Outcome] = (), known: Sequence[Outcome] = ()) -> str:
    """Say what was done and what came out, as Markdown: problems that break solvers, and those of `kinds`."""
    rows, families = (*SOLVERS, *OTHERS), [*FAMILIES, "failing at random"]
    parts = ["## Random problems", *_counted(outcomes, SOLVERS, families)]
    if others:
        parts += ["The same problems, each by one of the other solvers.", *_counted(others, OTHERS, families)]
    if known:
        parts += ["## Saddles, units and rows", *_counted(known, rows, kinds.KINDS)]
    return "\n\n".join(parts)


def _counted(outcomes: Sequence[Outcome], solvers: Sequence[str], families: Sequence[str]) -> list[str]:
    counts = Counter(outcome.verdict for outcome in outcomes)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    said = f"Seeds {outcomes[0].seed} to {outcomes[-1].seed}, one solve each of at most {LIMITS['max_iterations']} "
    said += f"iterations. {counts[WRONG]} of {sum(counts[v] for v in ('CONVERGED', WRONG, UNDECIDED))} claims of an "
    said += f"optimum were wrong, {counts[UNDECIDED]} could not be decided, {counts[NOT_INFEASIBLE]} of "
    said += f"{counts['INFEASIBLE'] + counts[NOT_INFEASIBLE]} answers said infeasible of what is not, "
    said += f"{counts['CRASH']} solves crashed or returned what is not finite, {counts['HUNG']} took more than "
    said += f"{LONGEST:.0f} s; the slowest took {slowest.seconds:.1f} s of the processor (seed {slowest.seed})."
    failures = [
        f"seed {o.seed}, {o.family}, {o.solver}: {o.verdict}, {o.note}" for o in outcomes if o.verdict in FAILURES
    ]
    return [said, table(outcomes, "solver", solvers), table(outcomes, "family", families), *failures]


def table(outcomes: Sequence[Outcome], by: str, rows: Sequence[str]) -> str:
    """Count verdicts by solver or family, as Markdown."""
    counts = Counter((getattr(outcome, by), outcome.verdict) for outcome in outcomes)
    verdicts = [status.name for status in Status] + ["REFUSED", UNDECIDED, *FAILURES]
    shown = [v for v in verdicts if v in FAILURES or any(counts[row, v] for row in rows)]
    lines = [[row, *(str(counts[row, v]) for v in shown)] for row in rows]
    total = ["all", *(str(sum(counts[row, v] for row in rows)) for v in shown)]
    return markdown([by, *(v.lower().replace("_", " ") for v in shown)], [*lines, total])

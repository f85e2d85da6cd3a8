"""Random solves, every claim of success held against an independent check."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.page import markdown
from benchmarks.reliability import condensed
from benchmarks.reliability.problems import FAMILIES, Draw, draw
from ocpkit import ProblemError, Solution, Status
from ocpkit.solvers import registry

SOLVERS = ("ddp", "ilqr", "fddp", "al", "gd", "ipopt")
ENGINES = ("numpy", "vm", "c")
COMPILED = ("smooth", "undefined", "jumps")  # families of one size that also run in C; each takes a compiler's second
LIMITS = {"max_iterations": 100, "time_limit": 60.0}
FAILURES = ("WRONG", "CRASH", "HUNG")
LONGEST = 30.0  # processor seconds of a solve beyond which it counts as hung
SLACK = 10.0  # of a tolerance
NEGLIGIBLE = 1e-8  # a decrease of J, relative to 1 + |J|, that nobody misses
DIFFERENCES = 1e-4  # error of central differences, relative to the gradients at the guess


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
    """Draw a problem, a solver and an engine; solve; check what is claimed."""
    drawn, rng = draw(seed), np.random.default_rng([seed, 1])
    black_box = drawn.given is not drawn.clean
    solver = str(rng.choice(["ddp", "ilqr", "fddp", "gd"] if black_box else SOLVERS))
    options: dict[str, Any] = dict(LIMITS)
    if solver in ("ddp", "ilqr", "fddp") and not black_box:
        compiled = drawn.family in COMPILED and len(drawn.clean.x0) == 2
        options["engine"] = str(rng.choice(ENGINES if compiled else ENGINES[:2]))
    began, note = time.process_time(), ""
    try:
        method = registry.make(solver, **options)
        solution = method.solve(drawn.given)
        verdict = solution.status.name
    except ProblemError as error:
        verdict, note = "REFUSED", str(error)
    except Exception as error:
        verdict, note = "CRASH", f"{type(error).__name__}: {error}"
    else:
        if solution.success and (note := objection(drawn, solution, _tolerance(method, drawn, solution))):
            verdict = "WRONG"
        elif not solution.success:
            note = nonsense(solution)
            verdict = "CRASH" if note else verdict
    seconds = time.process_time() - began
    return Outcome(seed, drawn.family, solver, "HUNG" if seconds > LONGEST else verdict, seconds, note)


def objection(drawn: Draw, solution: Solution, tolerance: float) -> str:
    """Say why a claimed optimum is none, or nothing."""
    problem = drawn.clean
    stage, scale = problem.stages[0], 1 + abs(solution.cost)
    if not ((solution.controls >= stage.control_lower) & (solution.controls <= stage.control_upper)).all():
        return "a control is outside its bounds"
    if not (gap := condensed.gap(problem, solution)) <= 1e-6:
        return f"the dynamics are violated by {gap:.1e}"
    if not (apart := abs(condensed.cost(problem, solution) - solution.cost) / scale) <= 1e-6:
        return f"J is wrong by {apart:.1e}"
    policies = [None] if solution.feedback_gains is None else [None, solution.feedback_gains]
    product = SLACK * tolerance if solution.solver == "IPOPT" else 0.0
    slope = min(float(np.abs(condensed.gradient(problem, solution, K, product)[1]).max()) for K in policies)
    if slope <= SLACK * tolerance:
        return ""
    promise = condensed.newton_decrease(problem, solution)
    return "" if promise <= NEGLIGIBLE * scale else f"gradient {slope:.1e}, J could fall by {promise:.1e}"


def nonsense(solution: Solution) -> str:
    """Say what is not finite in an answer that claims nothing but must be usable, or nothing."""
    if solution.status is Status.INVALID_INPUT:
        return ""
    finite = all(np.isfinite(x).all() for x in (*solution.states, *solution.controls)) and np.isfinite(solution.cost)
    return "" if finite else f"{solution.status.name} returns an iterate that is not finite"


def _tolerance(method: Any, drawn: Draw, solution: Solution) -> float:
    """What ‖∇J‖_∞ may be: the solver's tolerance; IPOPT scales the cost and divides by the co-states' mean size."""
    if drawn.given is not drawn.clean:
        largest = np.abs(condensed.gradient(drawn.clean, solution)[0]).max()
        return float(method.gradient_tolerance + DIFFERENCES * largest)
    if not hasattr(method, "tolerance"):
        return float(method.gradient_tolerance)
    steepest = np.abs(condensed.gradient(drawn.clean, _guess(drawn, solution))[0]).max()
    costates = np.mean([np.abs(p).mean() for p in solution.value_gradients])
    return float(method.tolerance * max(1.0, steepest / 100) * max(1.0, costates / 100))


def _guess(drawn: Draw, solution: Solution) -> Solution:
    controls = np.stack(drawn.clean.controls)
    states, cost = drawn.clean.rollout(controls)
    return replace(solution, states=states, controls=controls, cost=cost)


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

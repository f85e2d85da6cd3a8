"""The benchmark of first solves: what its rules say of rows, and that one case can be measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.first_solve import cases, verdicts, worker
from benchmarks.first_solve.race import Row


def row(seconds: float, J: float = 1.0, status: str = "CONVERGED", *, solved: bool = True, ready: float = 1.0) -> Row:
    """A row in which IPOPT takes 1 s for J = 1, and 1 s again."""
    wall = {"declare": 0.25 * seconds, "solve": 0.75 * seconds, "second": 0.05, "ready": 0.0, "in C": 0.01}
    ours = {"wall": wall, "sizes": [2, 1, 10], "solves": [{"J": J, "status": status}] * 3}
    of_ipopt = {"write": 0.2, "build": 0.3, "solve": 0.5, "second": 1.0}
    theirs = {"wall": of_ipopt, "solves": [{"J": 1.0, "status": "", "success": solved}] * 2}
    build = {"wall": {"declare": 0.0, "build": ready}}
    return Row("pendulum", {"ocpkit": [ours], "ipopt": [theirs], "c": [build]})


def measured(*rows: Row) -> dict[str, float]:
    return {verdict.target: verdict.measured for verdict in verdicts.judge(rows)}


def test_ratios_are_judged_over_all_rows() -> None:
    found = measured(*(row(0.1 * k, ready=k) for k in range(1, 11)))
    assert found["first solve / IPOPT's, median"] == pytest.approx(0.55)
    assert found["first solve / IPOPT's, nine in ten"] == pytest.approx(0.9)
    assert found["first solve / IPOPT's, largest"] == pytest.approx(1.0)
    assert found["second solve / IPOPT's, largest"] == pytest.approx(0.05)
    assert found["solve in C / IPOPT's second, largest"] == pytest.approx(0.01)
    assert found["seconds until C is ready, n ≤ 14, largest"] == 10


@pytest.mark.parametrize("bad", [row(0.1, status="TIME_LIMIT"), row(0.1, J=1.0 + 2e-6)])
def test_an_answer_that_does_not_count_has_no_time(bad: Row) -> None:
    assert measured(bad)["first solve / IPOPT's, largest"] == float("inf")


def test_costs_are_compared_only_between_answers() -> None:
    words = [verdicts.compare_costs(each) for each in (row(1), row(1, 0.9), row(1, 1.1), row(1, 0.9, "TIME_LIMIT"))]
    assert words == ["same", "better", "worse", ""]
    assert verdicts.compare_costs(row(1, 0.9, solved=False)) == ""


def test_a_process_that_was_ended_has_no_answer() -> None:
    ended: dict[str, list[Any]] = {"ocpkit": [None], "ipopt": row(1).samples["ipopt"], "c": [None]}
    found = measured(Row("pendulum", ended))
    assert found["answers that are not converged"] == 1
    assert found["first solve / IPOPT's, largest"] == float("inf")


def test_every_case_has_its_solver() -> None:
    for name, solver in (("pendulum", "DDP"), ("suite/dqc", "PrimalDual")):
        problem = cases.get(name).declare()
        assert cases.recommended(30.0).solve(problem).solver == solver
    assert len({*cases.names()}) == len(cases.names())


@pytest.mark.slow
def test_roles_measure_a_case(builds_beside: None) -> None:
    case = cases.get("suite/dqc")
    ours, theirs = worker.solve_by_ocpkit(case, 60.0), worker.solve_by_ipopt(case, 60.0)
    assert ours["sizes"] == [2, 1, 60]
    assert all(each["status"] == "CONVERGED" for each in ours["solves"])
    assert ours["solves"][2]["engine"].startswith("vm")
    assert ours["solves"][0]["J"] == pytest.approx(theirs["solves"][0]["J"], rel=1e-6)
    assert theirs["solves"][1]["success"]

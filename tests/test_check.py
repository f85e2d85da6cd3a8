"""check_derivatives passes right models and names the planted wrong entry of a wrong one."""

from typing import Any

import numpy as np
import pytest
from problems import CASES, Case, HandWritten, HandWrittenCost

from ocpkit import FunctionTerminalCost, Problem, Stage, TerminalCost, check_derivatives


@pytest.mark.parametrize("case", CASES, ids=str)
def test_right_derivatives_pass(case: Case) -> None:
    report = check_derivatives(case.problem(), samples=2)
    assert report.ok, str(report)
    assert report.entries > 0
    assert "derivatives agree" in str(report)


class RightEnd(TerminalCost):
    state_size = 2

    def value(self, x: Any, p: Any) -> float:
        return float(np.sin(x[0]) + x[1] ** 2)

    def gradient(self, x: Any, p: Any) -> Any:
        return np.array([np.cos(x[0]), 2 * x[1]])

    def hessian(self, x: Any, p: Any) -> Any:
        return np.diag([-np.sin(x[0]), 2.0])


def planted(method: str, part: int, entry: tuple[int, ...], base: type) -> Any:
    """A copy of a class whose `method` errs by 0.01 at one entry of one of its blocks."""

    def wrong(self: Any, *arguments: Any) -> Any:
        blocks = getattr(base, method)(self, *arguments)
        single = isinstance(blocks, np.ndarray)
        blocks = [np.array(block, dtype=float) for block in ([blocks] if single else blocks)]
        blocks[part][entry] += 0.01
        return blocks[0] if single else tuple(blocks)

    return type(f"Wrong{base.__name__}", (base,), {method: wrong})()


@pytest.mark.parametrize(
    ("base", "method", "part", "entry", "block"),
    [
        (HandWritten, "jacobians", 0, (1, 0), "fx"),
        (HandWritten, "jacobians", 1, (0, 0), "fu"),
        (HandWritten, "hessian_product", 0, (0, 1), "v·fxx"),
        (HandWritten, "hessian_product", 1, (0, 1), "v·fux"),
        (HandWritten, "hessian_product", 2, (0, 0), "v·fuu"),
        (HandWrittenCost, "gradient", 0, (1,), "lx"),
        (HandWrittenCost, "gradient", 1, (0,), "lu"),
        (HandWrittenCost, "hessian", 0, (1, 1), "lxx"),
        (HandWrittenCost, "hessian", 1, (0, 1), "lux"),
        (HandWrittenCost, "hessian", 2, (0, 0), "luu"),
        (RightEnd, "gradient", 0, (1,), "phi_x"),
        (RightEnd, "hessian", 0, (0, 1), "phi_xx"),
    ],
)
def test_planted_error_is_named(base: type, method: str, part: int, entry: tuple[int, ...], block: str) -> None:
    wrong = planted(method, part, entry, base)
    right = Stage(HandWritten(), HandWrittenCost(), name="right")
    faulty = {
        HandWritten: lambda: Stage(wrong, HandWrittenCost(), name="faulty"),
        HandWrittenCost: lambda: Stage(HandWritten(), wrong, name="faulty"),
        RightEnd: lambda: right,
    }[base]()
    end = wrong if base is RightEnd else RightEnd()
    problem = Problem(stages=(right, right, faulty), terminal_cost=end, x0=np.array([0.5, -0.3]))
    report = check_derivatives(problem)
    assert not report.ok
    assert (report.block, report.entry) == (block, entry)
    assert report.place == ("the terminal cost" if base is RightEnd else "stage 2 ('faulty')")
    assert report.declared - report.measured == pytest.approx(0.01, rel=1e-4)
    assert "DISAGREE" in str(report)
    assert f"{block}{list(entry)}" in str(report)


def test_derivative_that_is_not_a_number() -> None:
    class Broken(HandWritten):
        def jacobians(self, x: Any, u: Any, p: Any) -> Any:
            return np.full((2, 2), np.nan), np.ones((2, 1))

    stage = Stage(Broken(), HandWrittenCost())
    problem = Problem(stages=(stage,), terminal_cost=FunctionTerminalCost(lambda x: x @ x, 2), x0=np.zeros(2))
    report = check_derivatives(problem, samples=1)
    assert not report.ok
    assert report.error == np.inf

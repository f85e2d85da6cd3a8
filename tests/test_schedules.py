"""Line search, damping, penalty and barrier: their numbers, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from ocpkit import Barrier, Damping, LineSearch, Penalty, ProblemError, WarmStart

PARTS = (LineSearch, Damping, Penalty, Barrier)
REFUSED: list[tuple[type[Any], dict[str, Any], str]] = [
    (LineSearch, {"min_step_size": 2.0}, "min_step_size"),
    (LineSearch, {"armijo": 1.0}, "armijo"),
    (Damping, {"factor": 1.0}, "factor of the damping must be above 1, got 1.0"),
    (Damping, {"minimum": 2.0, "maximum": 1.0}, "minimum of the damping must not be above its maximum"),
    (Damping, {"maximum": float("inf")}, "must be finite"),
    (Damping, {"factor": float("inf")}, "must be finite"),
    (Damping, {"target": "controls"}, "did you mean 'control'"),
    (Damping, {"growth": "cubic"}, "growth of the damping"),
    (Penalty, {"factor": 1.0}, "factor of the penalty"),
    (Penalty, {"required_decrease": 1.0}, "required_decrease"),
    (Barrier, {"factor": 1.0}, "factor of the barrier must be below 1, got 1.0"),
]


@pytest.mark.parametrize(("kind", "options", "message"), REFUSED, ids=str)
def test_a_number_out_of_its_range_is_refused(kind: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        kind(**options)


@pytest.mark.parametrize("kind", PARTS)
def test_a_subclass_that_hides_an_option_is_refused(kind: type[Any]) -> None:
    option = next(iter(kind.__dataclass_fields__))
    hidden = type("Hidden", (kind,), {option: object()})
    with pytest.raises(ProblemError, match=option):
        hidden()


def test_steps_are_halved_down_to_the_least() -> None:
    assert LineSearch(min_step_size=0.2).step_sizes == [1.0, 0.5, 0.25]
    assert LineSearch(min_step_size=0.25).step_sizes == [1.0, 0.5, 0.25]
    assert LineSearch(min_step_size=1.0).step_sizes == [1.0]


def test_damping_grows_and_falls_by_its_factor() -> None:
    damping = Damping(minimum=0.01, factor=4.0, maximum=0.1)
    level = damping.start()
    assert level.value == 0.0
    values = []
    for _ in range(3):
        level = damping.raised(level)
        values.append(level.value)
    assert values == pytest.approx([0.01, 0.04, 0.16])
    assert damping.exhausted(level)
    assert not damping.exhausted(damping.lowered(level))
    for _ in range(3):
        level = damping.lowered(level)
    assert level.value == 0.0  # below the minimum


def test_quadratic_damping_speeds_up_while_it_goes_on_in_one_direction() -> None:
    damping = Damping(minimum=1.0, factor=2.0, growth="quadratic")
    level = damping.start()
    values = []
    for step in (damping.raised, damping.raised, damping.raised, damping.lowered, damping.lowered):
        level = step(level)
        values.append(level.value)
    assert values == [1.0, 4.0, 32.0, 16.0, 4.0]


def test_the_penalty_grows_where_the_residual_does_not_fall() -> None:
    penalty = Penalty(initial=2.0, maximum=1e4, factor=5.0, required_decrease=0.5)
    assert penalty.first(None) == 2.0
    warm = WarmStart(penalty=50.0, barrier=0.0, tolerance=1e-3)
    assert penalty.first(warm) == 50.0
    assert Penalty(initial=60.0, maximum=1e4).first(warm) == 60.0
    assert Penalty(initial=2.0, maximum=400.0, factor=5.0).first(warm) == 16.0  # leaves room to grow twice
    assert penalty.raised(2.0) == 10.0
    assert (penalty.exhausted(1e4), penalty.exhausted(1.1e4)) == (False, True)
    assert (penalty.too_slow(0.5, 1.0), penalty.too_slow(0.6, 1.0)) == (False, True)


def test_the_barrier_falls_to_its_last_value() -> None:
    barrier = Barrier(first=1e-2, last=1e-4, factor=0.05)
    assert barrier.begin(None) == 1e-2
    assert barrier.lowered(1e-2) == pytest.approx(5e-4)
    assert barrier.lowered(5e-4) == 1e-4
    for mu, begun in ((0.0, 1e-2), (1.0, 1e-2), (1e-3, 1e-3), (1e-9, 1e-4)):
        assert barrier.begin(WarmStart(penalty=1.0, barrier=mu, tolerance=1e-3)) == begun

"""The filter accepts nothing that is dominated; values between bounds stay there, with multipliers of their sign."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocpkit.solvers.primal_dual.bounded import APART, Bounded, longest
from ocpkit.solvers.primal_dual.filter import GAMMA_COST, GAMMA_VIOLATION, Filter

Array = Any
LARGEST = 50.0


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_solve() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


pairs = st.tuples(st.floats(0, 100), st.floats(-100, 100))


# ---------------------------------------------------------------------------------------------- the filter
@given(left=st.lists(pairs, max_size=12), trial=pairs)
def test_accepted_is_what_no_point_that_was_left_dominates(
    left: list[tuple[float, float]], trial: tuple[float, float]
) -> None:
    """Though pairs that others cover are forgotten."""
    kept, (violation, cost) = Filter(LARGEST), trial
    for theta, phi in left:
        kept.add(theta, phi)
    dominated = any(
        violation >= (1 - GAMMA_VIOLATION) * theta and cost >= phi - GAMMA_COST * theta for theta, phi in left
    )
    assert kept.accepts(violation, cost) == (not dominated and violation <= LARGEST)


@given(left=st.lists(pairs, min_size=1, max_size=12))
def test_what_was_left_is_not_returned_to(left: list[tuple[float, float]]) -> None:
    kept = Filter(LARGEST)
    accepted = [pair for pair in left if kept.accepts(*pair) and kept.add(*pair) is None]
    assert not any(kept.accepts(*pair) for pair in accepted)
    for theta, phi in kept.pairs:  # none covers another
        assert sum(theta >= a and phi >= b for a, b in kept.pairs) == 1


def test_no_number_is_not_accepted() -> None:
    kept = Filter(LARGEST)
    kept.add(1.0, 1.0)
    assert not kept.accepts(np.nan, 0.0)
    assert not kept.accepts(2.0, np.nan)


# ------------------------------------------------------------------------------------------------- bounded
@st.composite
def bounded(draw: st.DrawFn) -> Bounded:
    """Values pushed between bounds, of which some are infinite, and some narrow."""
    count = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = 10.0 ** rng.uniform(-6, 3, count)  # as a share of the size 1e-8 at least
    middle = width * 10.0 ** rng.uniform(-3, 8, count) * rng.normal(size=count)
    lower = np.where(rng.random(count) < 0.3, -np.inf, middle - width)
    upper = np.where(rng.random(count) < 0.3, np.inf, middle + width)
    push, multiplier = draw(st.sampled_from([1e-2, 1e-8])), 10.0 ** rng.uniform(-3, 3)
    return Bounded.inside(middle + 3 * width * rng.normal(size=count), lower, upper, push=push, multiplier=multiplier)


def step_of(at: Bounded, seed: int) -> Array:
    return 10.0 ** np.random.default_rng(seed).uniform(-6, 6) * np.random.default_rng(seed).normal(size=len(at.value))


seeds = st.integers(0, 2**32 - 1)


@given(at=bounded())
def test_a_start_is_inside(at: Bounded) -> None:
    assert (at.lower < at.value).all()
    assert (at.value < at.upper).all()
    for z, room in zip((at.below, at.above), at.room):
        assert ((z > 0) == np.isfinite(room)).all()


@settings(max_examples=300)
@given(at=bounded(), seed=seeds, tau=st.sampled_from([0.9, 0.99, 1 - 1e-9]))
def test_no_step_leaves_the_bounds(at: Bounded, seed: int, tau: float) -> None:
    """What is left of the room to each bound is 1 − τ of it; a step that is not short has come that near to one."""
    step = step_of(at, seed)
    alpha = at.largest_step(step, tau)
    moved = at.moved(alpha * step)
    assert 0 < alpha <= 1
    rounding = 4 * np.finfo(float).eps * np.maximum(np.abs(at.value), np.abs(moved.value))  # of the new value as well
    least = np.inf
    for before, after in zip(at.room, moved.room):
        finite = np.isfinite(before)
        assert (after[finite] >= (1 - tau) * before[finite] * (1 - 1e-9) - rounding[finite]).all()
        least = min(least, ((after - (1 - tau) * before) / before)[finite].min(initial=np.inf))
    assert alpha == 1 or least <= 1e-6 + (rounding / np.minimum(*at.room)).max()
    assert (moved.lower <= moved.value).all()
    assert (moved.value <= moved.upper).all()


@given(at=bounded(), seed=seeds, mu=st.sampled_from([1e-9, 1e-3, 1.0]))
def test_multipliers_keep_their_sign_and_are_newtons(at: Bounded, seed: int, mu: float) -> None:
    """z (v − bound) = μ holds to first order after a full step of both: the linearization is exact in each."""
    step = step_of(at, seed)
    steps = at.multiplier_steps(step, mu)
    alpha = at.largest_multiplier_step(steps, 0.99)
    for z, change, room, toward in zip((at.below, at.above), steps, at.room, (step, -step)):
        finite = np.isfinite(room)
        assert ((z + alpha * change)[finite] > 0).all()
        assert (change[~finite] == 0).all()
        np.testing.assert_allclose(
            (z * room + change * room + z * toward)[finite], mu, atol=1e-9 * size(z, toward, room)
        )


def size(z: Array, step: Array, room: Array) -> float:
    finite = np.isfinite(room)
    return max(1.0, float((z * (np.abs(step) + room))[finite].max(initial=0.0)))


@given(at=bounded(), mu=st.sampled_from([1e-9, 1e-3, 1.0]))
def test_multipliers_stay_within_a_factor_of_the_barriers(at: Bounded, mu: float) -> None:
    held = at.with_multipliers(1e30 * at.below, 0.0 * at.above, mu)
    for z, room in zip((held.below, held.above), held.room):
        finite = np.isfinite(room)
        assert (z[~finite] == 0).all()
        product = (z * room)[finite] / mu
        assert ((product >= 0.999 / APART) & (product <= 1.001 * APART)).all()


@given(at=bounded())
def test_slope_and_sigma_are_derivatives_of_the_barrier(at: Bounded) -> None:
    """At z = μ / room, where primal and primal-dual second derivatives are the same."""
    mu = 0.1
    low, high = at.room
    central = Bounded(at.value, at.lower, at.upper, mu / low, mu / high)
    for i in range(len(at.value)):
        h = 1e-4 * min(low[i], high[i], 1.0)
        if h < 1e-7 * abs(at.value[i]):
            continue  # rounding
        move = h * (np.arange(len(at.value)) == i)
        ahead, behind = at.moved(move), at.moved(-move)
        slope = mu * (ahead.barrier() - behind.barrier()) / (2 * h)
        assert central.slope(mu)[i] == pytest.approx(slope, rel=1e-4, abs=1e-4 * mu / min(low[i], high[i], 1e3))
        second = (ahead.slope(mu)[i] - behind.slope(mu)[i]) / (2 * h)
        assert central.sigma()[i] == pytest.approx(second, rel=1e-3, abs=1e-3 * mu / min(low[i], high[i], 1e3) ** 2)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_values_without_room_are_fixed(size: float) -> None:
    lower, upper = np.array([size, -1.0]), np.array([size + 1e-10 * max(1.0, size), 1.0])
    at = Bounded.inside(np.array([5.0, 0.0]), lower, upper, push=1e-2, multiplier=1.0)
    step = np.array([1.0, 0.5])
    assert at.fixed.tolist() == [True, False]
    assert lower[0] <= at.value[0] <= upper[0]
    assert at.largest_step(step, 0.99) == 1.0
    assert at.moved(step).value.tolist() == [at.value[0], 0.5]
    assert (at.below[0], at.above[0], at.slope(0.1)[0]) == (0.0, 0.0, 0.0)
    assert at.complementarity(1.0) == 0.0


def test_nothing_to_run_into_is_a_full_step() -> None:
    assert longest(np.full(2, np.inf), np.array([-1e300, 1.0]), 0.99) == 1.0
    assert longest(np.zeros(0), np.zeros(0), 0.99) == 1.0

"""The benchmark of robustness: its check knows optima, random problems keep or break their rows, the profile counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from benchmarks.robustness import chains, groups, guesses, kkt, pool, profile, quadrotor, record, systems, verdicts
from benchmarks.robustness import random_problems as random
from benchmarks.robustness.contract import Answer, Claim
from benchmarks.robustness.family import Family, Instance
from benchmarks.robustness.record import Record
from ocpkit import Constraint, Problem, Status, models, registry
from ocpkit.problem.constraint_rows import largest_violation, problem_rows, row_values


def braking(**declaration: Any) -> Problem:
    """A double integrator that may not push hard, nor go fast, and has to end at rest."""
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]]),
        cost=lambda x, u: 0.05 * (m.dot(x, x) + 0.1 * m.dot(u, u)) + 0.01 * m.cos(x[0]),
        terminal_cost=lambda x: 0.5 * m.dot(x, x),
        x0=[1.0, 0.0],
        horizon=30,
        control_size=1,
        control_bounds=(-1.5, 1.5),
        constraints=[Constraint(lambda x, u: x[1:], -0.6, np.inf, "slow")],
        terminal_constraints=[Constraint(lambda x: x[1:], 0.0, 0.0, "rest")],
        **declaration,
    )


def optimum(problem: Problem) -> Answer:
    return systems.get("ipopt")(problem, 10.0)(problem)


def test_an_optimum_passes_and_what_is_near_it_does_not() -> None:
    problem = braking()
    found = optimum(problem)
    verdict = kkt.check(problem, found.states, found.controls)
    assert verdict.holds
    assert verdict.slope <= 1e-2 * kkt.STATIONARY
    u = np.array(found.controls)
    assert np.isclose(np.abs(u), 1.5, atol=1e-6).any()  # bounds hold, so that their multipliers are needed
    inside = u + 1e-2 * np.sin(np.arange(30))[:, None] * (np.abs(u) < 1.4)
    inside[-1] = (0.0 - problem.simulate(list(inside))[-2][1]) / 0.1  # still at rest at the end
    states = problem.simulate(list(inside))
    moved = kkt.check(problem, states, list(inside))
    assert not moved.holds
    loose = problem.replace(stages=tuple(replace(s, constraints=()) for s in problem.stages))
    assert kkt.check(loose, states, list(inside)).feasible
    assert kkt.check(loose, states, list(inside)).slope > 10 * kkt.STATIONARY


@pytest.mark.parametrize("what", ["dynamics", "bound", "row", "end", "NaN"])
def test_what_does_not_hold_is_seen(what: str) -> None:
    problem = braking()
    found = optimum(problem)
    x, u = np.array(found.states), np.array(found.controls)
    if what == "dynamics":
        x[10, 0] += 1e-5
    elif what == "NaN":
        x[10, 0] = np.nan
    elif what == "bound":
        u[0] -= 1e-3
        x = np.array(problem.simulate(list(u)))
    elif what == "row":
        problem = problem.replace(stages=tuple(_slower(stage) for stage in problem.stages))
    else:
        problem = problem.replace(
            terminal_constraints=(replace(problem.terminal_constraints[0], lower=0.1, upper=0.1),)
        )
    assert not kkt.check(problem, list(x), list(u)).feasible


def _slower(stage: Any) -> Any:
    return replace(stage, constraints=(replace(stage.constraints[0], lower=-0.5),))


def test_a_multiplier_of_the_wrong_sign_is_none() -> None:
    """At the upper bound J falls towards the inside: the gradient vanishes only with y < 0, which is not allowed."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: m.dot(u, u),
        terminal_cost=lambda x: m.dot(x, x),
        x0=[0.0],
        horizon=2,
        control_size=1,
        control_bounds=(-1.0, 1.0),
    )
    for u, optimal in ((1.0, False), (0.0, True)):
        controls = [np.array([u])] * 2
        assert kkt.check(problem, problem.simulate(controls), controls).holds is optimal


def test_multipliers_that_are_not_unique_are_found() -> None:
    """In minimum time more bounds hold than there are controls: least squares give some multipliers the wrong sign."""
    problem = models.get("minimum-time").build()
    found = optimum(problem)
    assert kkt.check(problem, found.states, found.controls).holds


def test_unstable_states_do_not_blow_the_residual_up() -> None:
    family = groups.get("chains", chains.Kind(3, 1.0, 100).name)
    problem = guesses.begin(family.instances[1].change(family.declare()), guesses.GIVEN)
    found = optimum(problem)
    assert kkt.check(problem, found.states, found.controls).slope < 1e-6


@pytest.mark.parametrize("index", range(0, random.KINDS, 3))
def test_random_problems_keep_their_rows_along_a_known_trajectory(index: int) -> None:
    kind = random.draw_kind(index)
    template = random.template(kind)
    for number in range(random.DRAWS):
        drawn = random.draw(kind, number)
        if drawn.infeasible:
            continue
        problem = drawn.change(template)
        assert np.abs(drawn.u).max() <= 0.8
        np.testing.assert_allclose(problem.simulate(list(drawn.u)), drawn.x, atol=1e-9)
        rows = problem_rows(problem)
        assert largest_violation(rows, row_values(problem, rows, list(drawn.x), list(drawn.u)))[0] <= 1e-9


@pytest.mark.parametrize("index", range(random.KINDS))
def test_infeasible_draws_carry_a_certificate(index: int) -> None:
    kind = random.draw_kind(index)
    (number,) = [k for k in range(random.DRAWS) if random.is_infeasible(kind, k)]
    drawn = random.draw(kind, number)
    if kind.bounded_states:
        lower, upper = drawn.rows["state bounds"]
        least, most = (side[list(kind.bounded_states)] for side in random.after_one_step(kind, drawn.p, drawn.x[0]))
        assert ((most < lower) | (least > upper)).any()
        return
    far = random.farthest(kind, drawn.p, drawn.x[0])
    assert np.isfinite(far).all()
    if kind.end == "ball":
        assert np.abs(drawn.p[-kind.n :] - far).max() ** 2 > drawn.rows["end"][1]
        assert (drawn.p[-kind.n :] > far).all()
    else:
        assert (drawn.rows["end"][0] > far[list(kind.fixed)]).any()


def test_what_one_step_reaches_is_what_it_reaches() -> None:
    kind = next(k for k in map(random.draw_kind, range(random.KINDS)) if k.nonlinearity == "bilinear")
    drawn = random.draw(kind, 0)
    least, most = random.after_one_step(kind, drawn.p, drawn.x[0])
    step = random.template(kind).stages[0].dynamics.step
    rng = np.random.default_rng(0)
    found = np.array([step(drawn.x[0], u, drawn.p) for u in rng.choice([-1.0, 1.0], (200, kind.m))])
    np.testing.assert_allclose(found.min(axis=0), least)
    np.testing.assert_allclose(found.max(axis=0), most)


def test_problems_and_guesses_are_the_same_every_time() -> None:
    def numbers() -> list[Any]:
        found = []
        for group, name in (("random", random.draw_kind(1).name), ("chains", chains.KINDS[4].name)):
            family = {each.name: each for each in groups.GROUPS[group]()}[name]
            problem = family.instances[3].change(family.declare())
            for guess in guesses.names(4):
                begun = guesses.begin(problem, guess)
                found += [begun.x0, np.concatenate(begun.controls)]
                found += [] if begun.states is None else [np.concatenate(begun.states)]
        return found

    for one, other in zip(numbers(), numbers(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_groups_have_the_sizes_that_are_told_and_can_be_cut() -> None:
    sizes = {name: groups.count(groups.families(name)) for name in groups.GROUPS}
    assert sizes | {"tasks": 0} == {"tasks": 0, "suite": 23, "random": 200, "chains": 50, "quadrotor": 12}
    assert groups.count(groups.some("random", 7)) == 7
    assert len({family.name for family in groups.some("random", 7)}) == 7
    assert sum(each.infeasible for family in groups.families("random") for each in family.instances) == random.KINDS


def test_a_chain_to_zero_begins_where_its_bounds_suffice() -> None:
    kind = next(kind for kind in chains.KINDS if kind.ends_at_zero and kind.growth)
    number, problem = chains.KINDS.index(kind), chains.template(kind)
    A, B = problem.stages[0].dynamics.jacobians(np.zeros(kind.n), np.zeros(1), np.zeros(0))
    for k in range(1, chains.DRAWS):
        x0 = chains.start(kind, number, k, problem)
        T = kind.horizon  # controls of at most 0.9 do it, so that those of the least norm are below 0.9 √T
        reach = np.column_stack([np.linalg.matrix_power(A, T - 1 - t) @ B for t in range(T)])
        u = np.linalg.lstsq(reach, -np.linalg.matrix_power(A, T) @ x0, rcond=None)[0]
        assert np.isfinite(u).all()
        assert np.linalg.norm(u) <= 0.9 * np.sqrt(T) + 1e-6


def test_the_quadrotor_begins_upside_down_with_a_unit_quaternion() -> None:
    for x0 in quadrotor.starts():
        assert np.linalg.norm(x0[3:7]) == pytest.approx(1.0)
        assert 2.4 <= 2 * np.arccos(x0[3]) <= 3.0


def run(system: str, case: str, seconds: float, *, solved: bool = True, **fields: Any) -> Record:
    base = Record("g", "f", case, "given", system, "optimal", "", solved, solved, 1.0, 0.0, 0.0, 4, seconds)
    return replace(base, **fields)


def test_a_profile_counts_what_is_within_a_factor_of_the_best() -> None:
    table = verdicts.Table(
        [
            *(run("a", "1", 1.0), run("b", "1", 2.0)),
            *(run("a", "2", 3.0), run("b", "2", 1.0)),
            *(run("a", "3", 1.0), run("b", "3", 1.0, solved=False)),
            *(run("a", "4", 1.0, solved=False), run("b", "4", 1.0, solved=False)),
        ]
    )
    relative = profile.ratios(profile.costs_of(table, verdicts.seconds))
    np.testing.assert_array_equal(relative["a"], [1, 3, 1, np.inf])
    np.testing.assert_array_equal(relative["b"], [2, 1, np.inf, np.inf])
    factors = np.array([1.0, 2.0, 3.0, 1e9])
    np.testing.assert_array_equal(profile.share_within(relative["a"], factors), [0.5, 0.5, 0.75, 0.75])
    np.testing.assert_array_equal(profile.share_within(relative["b"], factors), [0.25, 0.5, 0.5, 0.5])


def test_claims_and_optima_are_judged_over_all_systems() -> None:
    claims = [
        run("a", "1", 1.0, cost=1.0 + 2e-6),
        run("b", "1", 2.0),
        run("a", "2", 1.0, solved=False, claim="infeasible"),  # b keeps all rows
        run("b", "2", 1.0),
        run("a", "3", 1.0, solved=False),
        run("b", "3", 1.0, solved=False, claim="infeasible"),  # nobody does: not proven, not false
        run("a", "4", 1.0, solved=False, claim="infeasible", infeasible=True),
        run("b", "4", 1.0, infeasible=True, solved=False, claim="nothing"),
    ]
    table = verdicts.Table(claims)
    assert [verdicts.success(each) for each in claims] == [True, True, False, True, False, False, True, False]
    assert [table.false_claim(each) for each in claims] == [False, False, True, False, True, False, False, False]
    assert [table.best_reached(each) for each in claims] == [False, True, False, True, False, False, True, False]
    (line,) = [each for each in verdicts.lines(table) if (each.group, each.system) == ("g", "a")]
    assert (line.runs, line.success, line.best, line.false_claims) == (4, 0.5, 0.25, 2)
    assert table.ratio(table.of("g", "a"), table.of("g", "b"), verdicts.seconds) == pytest.approx(0.5)


def test_records_come_back_from_their_file(tmp_path: Path) -> None:
    kept = [run("a", "1", 0.125), replace(run("a", "2", 1.0), cost=None, seconds=None, status="Error: what, [1]")]
    record.write(tmp_path / "r.json.gz", kept)
    assert list(record.read(tmp_path / "r.json.gz").values()) == kept


def test_every_way_to_fail_is_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the worker itself: a system that raises is not the end of the run."""
    from benchmarks.robustness import worker

    family = Family("g", "f", braking, (Instance(""),))
    monkeypatch.setattr(worker.groups, "get", lambda group, name: family)
    bench = worker._Bench(family, 10.0)
    refused = bench.run(Record("g", "f", "", "given", "ddp"), lambda part: None)
    assert not verdicts.success(refused)
    assert "Error" in refused.status or "Unsupported" in refused.status
    assert verdicts.success(bench.run(Record("g", "f", "", "zeros", "fatrop"), lambda part: None))


@pytest.mark.slow
def test_a_family_runs_in_a_process_of_its_own() -> None:
    (family,) = groups.some("chains", 1)
    plan = pool.Plan([guesses.GIVEN], ["default", "ipopt"], 10.0)
    (found,) = pool.run([family], plan, frozenset(), 1)
    assert [verdicts.success(each) for each in found] == [True, True]
    assert list(pool.run([family], plan, {each.key for each in found}, 1)) == [[]]


def test_ocpkits_names_are_systems() -> None:
    assert systems.Ours in {type(systems.get(name)) for name in ("default", *registry.names())}
    assert systems.CLAIMS[Status.CONVERGED] is Claim.OPTIMAL

"""E2: slopes of known powers, memory of known tensors, and the rule by which costs are judged."""

import math

import pytest
import torch

from ocpkit import ProblemError
from ocpkit_nn import paired_times, peak_memory
from ocpkit_nn.experiments import e2
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY
from ocpkit_nn.experiments.run import Options, Result

torch.set_num_threads(1)
INPUTS, TARGETS = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
RUNS = e2.runs(Options())


def step_of(*sizes):
    """A step that allocates tensors of so many floats one after the other, and keeps them to its end."""

    def step(inputs, targets):
        kept = [torch.empty(size) for size in sizes]
        return float(len(kept))

    return step


def test_the_peak_is_that_of_what_lives_at_once():
    assert peak_memory(lambda: step_of(1000, 500), INPUTS, TARGETS) == pytest.approx(6000, abs=512)

    def one_after_the_other(inputs, targets):
        for _ in range(5):
            kept = torch.empty(1000)
            del kept
        return 0.0

    assert peak_memory(lambda: one_after_the_other, INPUTS, TARGETS) == pytest.approx(4000, abs=512)


def test_rounds_time_both_steps_in_turn(monkeypatch):
    """With a clock that only the steps move, the medians are those of the steps."""
    now = [0.0]
    monkeypatch.setattr("time.process_time", lambda: now[0])

    def taking(seconds):
        def step(inputs, targets):
            now[0] += seconds
            return 0.0

        return step

    cpu, ratio = paired_times(taking(0.75), taking(0.25), INPUTS, TARGETS, rounds=3, seconds=1.0)
    assert (cpu, ratio) == (0.75, 3.0)
    assert now[0] == 2 * (0.75 + 0.25) + 3 * (0.75 + 4 * 0.25)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_slopes_are_powers_of_the_larger_sizes(power):
    sizes = [1, 2, 4, 8, 16, 32]
    costs = [5.0, 5.0, 5.0, *(3 * size**power for size in sizes[3:])]
    assert e2.slope(sizes, costs) == pytest.approx(power)
    assert e2.slope(sizes[::-1], costs[::-1]) == pytest.approx(power)
    assert math.isnan(e2.slope([4], [1.0]))


def test_every_method_is_measured_and_says_what_it_is():
    names = {e2.label(run) for run in RUNS}
    assert len(names) == len(e2.METHODS)
    assert len({run.key for run in RUNS}) == len(RUNS)
    for axis, sizes in e2.SIZES.items():
        swept = [run for run in RUNS if e2.axis_of(run) == axis and run.method == "sgd"]
        assert [e2.size_of(run) for run in swept] == list(sizes)
    with pytest.raises(ProblemError, match="leave out --dataset"):
        e2.runs(Options(datasets=("digits",)))


def test_a_measurement_counts_the_weights():
    run = next(run for run in e2.runs(Options(quick=True)) if run.method == "sgd" and e2.axis_of(run) == "width")
    result = e2.train(run)
    weights = 4 * (4 * 16 * 17 + 10 * 17)  # bytes: four layers of 16, one of 10 outputs
    assert 2 * weights <= result.measures["bytes"] <= 10 * weights
    assert result.measures["seconds"] > 0


def invented(run, powers, factors):
    size = {"batch": run.batch_size, **run.network}
    cost = 1e-6 * math.prod(size[axis] ** power for axis, power in powers.items())
    factor = factors.get(run.method, 1.0)
    return Result(run, 1.0, None, 1, 0.0, {}, {"seconds": factor * cost, "over_sgd": factor, "bytes": cost}, {})


@pytest.mark.parametrize(
    ("powers", "factors", "verdict"),
    [
        ({"batch": 1, "width": 2, "depth": 1}, {"ddpnopt": 1.5, "emsa": 20}, HOLDS),
        ({"batch": 1, "width": 2, "depth": 1}, {"ddpnopt": 3.0, "emsa": 20}, PARTLY),
        ({"batch": 1, "width": 2, "depth": 1}, {"ddpnopt": 1.5, "emsa": 2}, PARTLY),
        ({"batch": 1, "width": 3, "depth": 1}, {"ddpnopt": 1.5, "emsa": 20}, FAILS),
    ],
)
def test_it_judges_by_its_rule(powers, factors, verdict, tmp_path, monkeypatch):
    monkeypatch.setattr(e2, "_draw", lambda *_: None)
    assert e2.report([invented(run, powers, factors) for run in RUNS], tmp_path).verdict == verdict

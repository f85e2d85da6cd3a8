"""E8: how nontrivial singular values are counted, and what the spectra of the prediction layer must be."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ocpkit_nn import fcn
from ocpkit_nn.experiments import e8, trial
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY
from ocpkit_nn.experiments.run import Options, Result
from ocpkit_nn.layers import losses
from tests.nn.strategies import few_examples

torch.set_num_threads(1)
RUNS = e8.runs(Options(quick=True, seeds=1))


@few_examples
@given(
    kept=st.lists(st.floats(1.0, 10.0), min_size=1, max_size=6),
    rest=st.lists(st.floats(1e-4, 1e-3), min_size=1, max_size=6),
    scale=st.floats(1e-9, 1e9),
)
def test_values_before_the_largest_gap_are_counted(kept, rest, scale):
    values = sorted((scale * value for value in [*kept, *rest]), reverse=True)
    assert e8.nontrivial(values) == len(kept)


def test_rounding_is_no_gap():
    assert e8.nontrivial([1.0, 0.9, 1e-13, 1e-19, 0.0]) == 2


@pytest.mark.parametrize("run", [run for run in RUNS if run.dataset == "clusters:5"], ids=lambda run: str(run.network))
def test_the_policy_is_the_dense_one(run):
    """k is −η times the gradient of the mean loss, and K has the null space that its loss gives it."""
    torch.manual_seed(0)
    data, model = trial.dataset(run), fcn(30, run.network.get("classes", 5), width=8, depth=3, activation="tanh")
    before = [p.clone() for p in model.parameters()]
    k, K = e8.prediction_policy(model, run, data)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
    double = model.double()
    loss = losses.by_name(run.loss, data.classes).value(double(data.train_inputs.double()), data.train_targets).mean()
    weight, bias = torch.autograd.grad(loss, list(double[-1].parameters()))
    gradient = torch.cat([weight, bias[:, None]], dim=1).flatten()
    torch.testing.assert_close(k, -run.learning_rate * gradient, rtol=1e-9, atol=1e-14)
    last = double[-1]
    assert isinstance(last, nn.Linear)
    if run.loss == "ce":  # a deviation that moves all outputs alike changes no probability
        blind = torch.linalg.lstsq(last.weight.detach(), torch.ones(len(bias), 1, dtype=torch.float64)).solution
        if len(bias) <= 8:
            assert float((K @ blind).norm() / K.norm() / blind.norm()) < 1e-9
    assert int(torch.linalg.matrix_rank(K, rtol=1e-10)) == min(8, len(bias) - (run.loss == "ce"))


def test_a_run_records_its_stages():
    result = e8.train(replace(RUNS[0], network={"width": 8, "depth": 2}))
    measures = result.measures
    assert measures["update"][0] == 1
    assert measures["update"][-1] == result.updates
    assert len(measures["policy"]) == len(measures["gain"]) == len(measures["update"])
    assert [e8.nontrivial(values) for values in measures["policy"]] == [5] * len(measures["update"])


def invented(run, count, growth):
    kept = e8._clusters(run) + count
    spectra = [[size] * kept + [0.0] * (33 - kept) for size in (1.0, growth)]
    return Result(run, 1.0, 50.0, 2, 0.0, {}, {"update": [1, 2], "policy": spectra, "gain": spectra}, {})


@pytest.mark.parametrize(
    ("count", "growth", "verdict"), [(0, 2.0, HOLDS), (0, 0.5, PARTLY), (1, 2.0, FAILS), (-1, 2.0, FAILS)]
)
def test_it_judges_by_its_rule(tmp_path, monkeypatch, count, growth, verdict):
    monkeypatch.setattr(e8, "_draw", lambda *_: None)
    results = [invented(run, count, growth) for run in e8.runs(Options(seeds=2))]
    assert e8.report(results, tmp_path).verdict == verdict


def test_a_feedback_that_dies_has_not_grown(tmp_path, monkeypatch):
    monkeypatch.setattr(e8, "_draw", lambda *_: None)
    dead = [invented(run, 0, 0.0) for run in e8.runs(Options(seeds=1))]
    assert e8.report(dead, tmp_path).verdict != HOLDS


def test_without_a_spectrum_nothing_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(e8, "_draw", lambda *_: None)
    nothing = {"update": [], "policy": [], "gain": []}
    results = [replace(invented(run, 0, 1.0), measures=nothing) for run in e8.runs(Options(seeds=1))]
    assert e8.report(results, tmp_path).verdict == FAILS

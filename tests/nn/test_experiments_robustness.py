"""Robustness to the learning rate: its networks, its optimizers, its regression, and the rule by which it judges."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from sklearn.metrics import r2_score
from torch import nn

from ocpkit import ProblemError
from ocpkit_nn import CrossEntropy, DDPNOpt, MeanSquaredError
from ocpkit_nn.data import load
from ocpkit_nn.experiments import robustness
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY
from ocpkit_nn.experiments.results import Results, capped_loss, percent
from ocpkit_nn.experiments.rivals import Muon, cosine
from ocpkit_nn.experiments.robustness import areas
from ocpkit_nn.experiments.run import QUICK_SAMPLES, Options, Result
from ocpkit_nn.experiments.trial import diabetes, mean_loss_and_explained, train
from ocpkit_nn.training.architectures import Attention, residual, transformer
from tests.nn.strategies import few_examples

torch.set_num_threads(1)
LOSS = CrossEntropy()
RUNS = robustness.runs(Options(seeds=2))
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")


@pytest.fixture
def batch():
    data = load("digits", seed=0)
    return data, data.train_inputs[:6], data.train_targets[:6]


def test_attention_is_torch_s():
    torch.manual_seed(0)
    own, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        for mine, other in (
            (own.inputs.weight, theirs.in_proj_weight),
            (own.inputs.bias, theirs.in_proj_bias),
            (own.output.weight, theirs.out_proj.weight),
            (own.output.bias, theirs.out_proj.bias),
        ):
            mine.copy_(torch.randn(mine.shape))
            other.copy_(mine)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(own(x), theirs(x, x, x, need_weights=False)[0])


def step_of_sgd(model, inputs, targets, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    LOSS.value(model(inputs), targets).mean().backward()
    optimizer.step()


@pytest.mark.parametrize("network", [transformer, residual])
def test_without_feedback_a_stagewise_step_is_back_propagation(network, batch):
    """Through attention, and through the statistics of batch norm."""
    data, inputs, targets = batch
    torch.manual_seed(0)
    model, other = network(data), network(data)
    other.load_state_dict(model.state_dict())
    DDPNOpt(model, LOSS, 0.1, curvature="identity", feedback="none").step(inputs, targets)
    step_of_sgd(other, inputs, targets, 0.1)
    for mine, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_networks_of_images_refuse_tables():
    with pytest.raises(ProblemError, match="needs images"):
        transformer(load("wine", seed=0))


def linear(*sizes):
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


@needs_muon
def test_muon_is_torch_s_for_the_hidden_layers_and_adamw_for_the_rest():
    torch.manual_seed(0)
    model, other = linear(4, 6, 5, 3), linear(4, 6, 5, 3)
    other.load_state_dict(model.state_dict())
    x, y = torch.randn(7, 4), torch.randint(0, 3, (7,))
    hidden = other[1].weight
    optimizers = (
        torch.optim.Muon([hidden], lr=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for p in other.parameters() if p is not hidden], lr=0.02),
    )
    own = Muon(model, LOSS, 0.02)
    for _ in range(3):
        other.zero_grad()
        LOSS.value(other(x), y).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        own.step(x, y)
    for mine, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine, theirs)


@needs_muon
def test_muon_moves_a_kernel_as_one_matrix(batch):
    data, inputs, targets = batch
    torch.manual_seed(0)
    model = residual(data)
    kernel = model[3].body[0].weight
    before = kernel.detach().clone()
    Muon(model, LOSS, 1e-3).step(inputs, targets)
    values = torch.linalg.svdvals((kernel.detach() - before * (1 - 1e-4)).flatten(1))  # without the weight decay
    assert float(values.min() / values.max()) > 0.4  # Newton and Schulz bring them near one, not to it


@needs_muon
def test_muon_goes_on_from_its_state():
    torch.manual_seed(0)
    x, y, model = torch.randn(7, 4), torch.randint(0, 3, (7,)), linear(4, 6, 5, 3)
    own = Muon(model, LOSS, 0.02)
    own.step(x, y)
    other = linear(4, 6, 5, 3)
    other.load_state_dict(model.state_dict())
    resumed = Muon(other, LOSS, 0.02)
    resumed.load_state_dict(deepcopy(own.state_dict()))
    assert own.step(x, y) == resumed.step(x, y)
    for mine, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine, theirs)


def test_the_cosine_ends_at_zero():
    weight = nn.Parameter(torch.zeros(1))
    optimizer, rates = torch.optim.SGD([weight], lr=0.4), []
    cosine(optimizer, 4)
    for _ in range(6):
        weight.grad = torch.ones(1)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
    expected = [0.4 * (1 + math.cos(math.pi * i / 4)) / 2 for i in (0, 1, 2, 3, 4, 4)]
    assert rates == pytest.approx(expected)


def test_the_regression_is_split_and_scaled_by_its_training_set():
    data, other = diabetes(0), diabetes(1)
    assert (len(data.train_inputs), len(data.test_inputs)) == (353, 89)
    for part in (data.train_inputs, data.train_targets):
        torch.testing.assert_close(part.mean(0), torch.zeros(part.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.std(0, correction=0), torch.ones(part.shape[1]))
    assert not torch.equal(data.test_targets, other.test_targets)


@few_examples
@given(st.integers(0, 2**20))
def test_explained_variance_is_that_of_scikit_learn(seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(9, 2, generator=generator)
    outputs = targets + torch.rand(1, generator=generator) * torch.randn(9, 2, generator=generator)
    loss, explained = mean_loss_and_explained(nn.Identity(), MeanSquaredError(), outputs, targets)
    expected = r2_score(targets, outputs, multioutput="variance_weighted")
    assert explained == pytest.approx(100 * max(0.0, expected), abs=1e-3)
    assert loss == pytest.approx(float(0.5 * (outputs - targets).square().sum(1).mean()), rel=1e-5)
    assert mean_loss_and_explained(nn.Identity(), MeanSquaredError(), -targets, targets)[1] == 0.0


def test_a_regression_is_learnt():
    run = next(run for run in RUNS if run.dataset == "diabetes" and run.method == "ddpnopt" and run.baseline == "adam")
    result = train(replace(run, learning_rate=3e-3, epochs=3))
    assert result.accuracy > 30
    assert result.train_loss < 0.7 * result.curves["train_loss"][0]


def test_every_method_has_three_decades_and_a_twin_those_of_its_baseline():
    for name in robustness.TASKS:
        own = [run for run in RUNS if robustness.task_name(run) == name]
        windows = {}
        for run in own:
            windows.setdefault((robustness.label(run), run.baseline), set()).add(run.learning_rate)
        assert {label for label, _ in windows} >= {"SGD", "twin of SGD", "AdamW", "Muon", "SGD, Nesterov, cosine"}
        for (_, baseline), rates in windows.items():
            assert max(rates) / min(rates) == pytest.approx(1000, rel=0.01)
            assert rates == set(robustness.rates(baseline))
    assert len({run.key for run in RUNS}) == len(RUNS)


def test_the_schedule_is_as_long_as_the_training():
    for quick in (False, True):
        every = robustness.runs(Options(seeds=1, quick=quick))
        run = next(r for r in every if r.method == "sgd-cosine" and r.dataset == "diabetes")
        samples = QUICK_SAMPLES if quick else 353
        assert run.optimizer["updates"] == run.epochs * math.ceil(samples / run.batch_size)


def test_unknown_tasks_are_refused():
    with pytest.raises(ProblemError, match="did you mean 'residual'"):
        robustness.runs(Options(datasets=("residal",)))


def invented(run, accuracy, loss=1.0):
    return Result(run, loss, accuracy, 1, 1.0, {"train_loss": [2.0, loss]})


SWEEP = [run for run in RUNS if robustness.task_name(run) == "digits" and robustness.label(run) == "SGD"]


@few_examples
@given(st.floats(0, 100), st.floats(-10, 10))
def test_the_area_is_the_mean_over_the_logarithm(level, slope):
    middle = math.log10(0.1)
    sweep = Results([invented(run, level + slope * (math.log10(run.learning_rate) - middle)) for run in SWEEP])
    assert areas(sweep, percent) == pytest.approx({0: level, 1: level}, abs=0.02)  # rates have three digits


def test_the_area_is_that_of_scipy_and_a_loss_is_at_most_the_one_before_training():
    losses = [0.1, 3.0, None, 0.2, 2.5, 1.0, None] * 2
    results = [invented(run, 50.0, loss) for run, loss in zip(SWEEP, losses)]
    assert [capped_loss(result) for result in results[:7]] == [0.1, 2.0, 2.0, 0.2, 2.0, 1.0, 2.0]
    x = np.log10([run.learning_rate for run in SWEEP[:7]])
    expected = trapezoid([capped_loss(result) for result in results[:7]], x) / (x[-1] - x[0])
    assert areas(Results(results), capped_loss)[0] == pytest.approx(expected)


def widen(run):
    return 5.0 + run.seed if run.feedback == "full" else 0.0


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (widen, HOLDS),
        (lambda run: widen(run) + (20 if run.method == "muon" else 0), PARTLY),  # which has the largest area
        (lambda run: widen(run) * (run.baseline == "sgd"), PARTLY),  # in fewer than half of the pairs
        (lambda run: widen(run) * (-1 if run.baseline == "adam" else 1), PARTLY),  # and narrower in some
        (lambda run: 0.0, FAILS),
        (lambda run: -widen(run), FAILS),
    ],
)
def test_it_judges_by_its_rule(gain, verdict, monkeypatch, tmp_path):
    monkeypatch.setattr(robustness, "_draw", lambda *_: None)
    report = robustness.report([invented(run, 50.0 + gain(run)) for run in RUNS], tmp_path)
    assert report.verdict == verdict


def test_it_says_where_the_feedback_does_not_pay(monkeypatch, tmp_path):
    monkeypatch.setattr(robustness, "_draw", lambda *_: None)

    def accuracy(run):
        is_worse = robustness.task_name(run) == "residual" and run.method == "ddpnopt" and run.baseline == "adam"
        return 49.0 - 0.1 * run.seed if is_worse else 50.0

    text = robustness.report([invented(run, accuracy(run)) for run in RUNS], tmp_path).text
    assert "it narrows the range for residual (twin of Adam)" in text

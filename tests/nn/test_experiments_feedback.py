"""Other forms of the feedback: a sweep that takes gradients anew, a trust region, and the rule by which it judges."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from ocpkit import ProblemError
from ocpkit_nn import CrossEntropy, DDPNOpt, fcn
from ocpkit_nn.experiments import feedback
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY
from ocpkit_nn.experiments.rivals import GaussSeidel
from ocpkit_nn.experiments.run import Options, Result
from ocpkit_nn.experiments.stacked import TrustRegion

torch.set_num_threads(1)
LOSS = CrossEntropy()
RUNS = feedback.runs(Options(seeds=2, datasets=("digits",)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fcn(4, 3, width=6, depth=4, activation="tanh").double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    inputs = 3 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (7,), generator=generator)


def sgd(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def mean_loss(model, inputs, targets):
    return LOSS.value(model(inputs), targets).mean()


def test_the_sweep_takes_every_gradient_where_the_layers_before_it_have_moved(model, batch):
    own, lr = deepcopy(model), 0.7
    before = mean_loss(own, *batch).item()
    assert GaussSeidel(own, LOSS, sgd(lr)).step(*batch) == pytest.approx(before)
    for layer in (m for m in model if isinstance(m, nn.Linear)):
        gradients = torch.autograd.grad(mean_loss(model, *batch), [layer.weight, layer.bias])
        with torch.no_grad():
            layer.weight -= lr * gradients[0]
            layer.bias -= lr * gradients[1]
    for mine, theirs in zip(own.parameters(), model.parameters()):
        torch.testing.assert_close(mine, theirs)


def test_the_sweep_differs_from_gradient_descent_by_what_layers_do_to_each_other(model, batch):
    """To second order in the rate: the first layer's step is the same, the others' difference falls as lr²."""
    differences = []
    for lr in (1e-2, 1e-3):
        own, plain = deepcopy(model), deepcopy(model)
        GaussSeidel(own, LOSS, sgd(lr)).step(*batch)
        mean_loss(plain, *batch).backward()
        torch.optim.SGD(plain.parameters(), lr=lr).step()
        torch.testing.assert_close(own[0].weight, plain[0].weight)
        differences.append(float((own[2].weight - plain[2].weight).norm().detach()))
    assert differences[0] / differences[1] == pytest.approx(100, rel=0.1)


def test_the_sweep_goes_on_from_its_state(model, batch):
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.01)  # noqa: E731
    own = GaussSeidel(model, LOSS, adam)
    own.step(*batch)
    other = deepcopy(model)
    resumed = GaussSeidel(other, LOSS, adam)
    resumed.load_state_dict(deepcopy(own.state_dict()))
    own.step(*batch)
    resumed.step(*batch)
    for mine, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


CURVATURES = ["identity", "diagonal", "adam", "kronecker"]


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize(("radius", "form"), [(0.0, "value"), (1e9, "full")])
def test_a_radius_of_zero_is_no_feedback_and_a_large_one_all_of_it(model, batch, curvature, radius, form):
    other = deepcopy(model)
    bounded = TrustRegion(model, LOSS, 0.3, radius=radius, curvature=curvature)
    plain = DDPNOpt(other, LOSS, 0.3, feedback=form, curvature=curvature)
    for _ in range(3):
        assert bounded.step(*batch) == pytest.approx(plain.step(*batch))
    for mine, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine, theirs)


def test_the_feedback_is_no_longer_than_the_radius_allows_and_keeps_its_direction(model, batch):
    """The second layer's feedback depends on the first one's step alone, which no radius changes."""

    def step_of_the_second_layer(radius):
        own = deepcopy(model)
        TrustRegion(own, LOSS, 0.5, radius=radius, curvature="identity", curvature_scale=1.0).step(*batch)
        return (own[2].weight - model[2].weight).detach().flatten(), (own[2].bias - model[2].bias).detach()

    forward, whole = torch.cat(step_of_the_second_layer(0.0)), torch.cat(step_of_the_second_layer(1e9))
    whole -= forward
    radius = 0.5 * float(whole.norm() / forward.norm())
    assert radius > 1e-3
    bounded = torch.cat(step_of_the_second_layer(radius)) - forward
    torch.testing.assert_close(bounded, 0.5 * whole)


def test_separable_gains_have_no_trust_region(model):
    with pytest.raises(ValueError, match="needs gains='exact'"):
        TrustRegion(model, LOSS, 0.1, radius=1.0, gains="separable")


@pytest.mark.parametrize("method", ["gauss-seidel", "clip-samples", "normalised"])
def test_kronecker_factors_are_no_optimizer_of_torch(model, method):
    run = replace(next(run for run in RUNS if run.method == "gauss-seidel"), method=method, baseline="ekfac")
    with pytest.raises(ProblemError, match="needs an optimizer of torch; EKFAC is none"):
        build(model, LOSS, run)


def test_every_cell_has_every_form_once_for_each_seed():
    cells = {}
    for run in RUNS:
        cells.setdefault((run.baseline, run.learning_rate, run.seed), []).append(feedback.form(run))
    assert len(cells) == 3 * 3 * 2
    for forms in cells.values():
        assert len(forms) == len(set(forms))
        assert {"baseline", "no K δx", "Alg. 3", "rank 1", "rank 3", "ρ = 0.1", "Gauss-Seidel"} <= set(forms)
        assert {"stacked", "stacked, no K δx", "stacked, own k", "stacked, all columns"} <= set(forms)


def judge(gain, monkeypatch, tmp_path):
    monkeypatch.setattr(feedback, "_draw", lambda *_: None)

    def result(run):
        loss = 1.0 - gain(run) + 0.01 * run.seed * (feedback.form(run) == "Alg. 3")
        return Result(run, loss, 50.0, 1, 1.0, {"train_loss": [2.0, loss]})

    return feedback.report([result(run) for run in RUNS], tmp_path)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (lambda run: 0.5 * (run.method == "gauss-seidel"), HOLDS),
        (lambda run: 0.5 * (run.method == "gauss-seidel") * (run.baseline == "sgd"), PARTLY),  # in a third
        (lambda run: (0.5 if run.baseline == "sgd" else -0.5) * (feedback.form(run) != "Alg. 3"), FAILS),
        (lambda run: 0.5 * (feedback.form(run) == "Alg. 3"), FAILS),
        (lambda run: 0.0, FAILS),
    ],
)
def test_it_judges_by_its_rule(gain, verdict, monkeypatch, tmp_path):
    assert judge(gain, monkeypatch, tmp_path).verdict == verdict


def test_it_names_the_best_form(monkeypatch, tmp_path):
    text = judge(lambda run: 0.5 * (feedback.form(run) == "rank 3"), monkeypatch, tmp_path).text
    assert "“rank 3”: its training loss is lower in 9 and higher in 0 of 9 cells" in text


def test_it_says_what_the_second_forward_pass_is_worth(monkeypatch, tmp_path):
    text = judge(lambda run: 0.5 * (feedback.form(run) == "stacked, no K δx"), monkeypatch, tmp_path).text
    assert "K δx makes Alg. 3 lower in 0 and higher in 0 of 9 cells" in text
    assert "K δx makes stacked lower in 0 and higher in 9 of 9 cells" in text

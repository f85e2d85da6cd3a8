"""The experiments' methods: twins that are their baselines, and rivals that do what their names say."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ocpkit_nn import Backpropagation, CrossEntropy, fcn
from ocpkit_nn.experiments.methods import METHODS, NAMES, TWIN, build
from ocpkit_nn.experiments.rivals import ClippedSamples, ImplicitSGD, clip, normalize, warm_up
from ocpkit_nn.experiments.run import Run
from ocpkit_nn.experiments.trial import train

torch.set_num_threads(1)
LOSS = CrossEntropy()
RATES = {
    "sgd": 0.3,
    "sgd-m": 0.05,
    "rmsprop": 0.01,
    "adam": 0.01,
    "kfac": 0.05,
    "ekfac": 0.05,
    "adamw": 0.01,
    "muon": 0.01,
}


def run(method, baseline="sgd", **changes):
    shared = {"item": "test", "dataset": "wine", "seed": 0, "epochs": 1, "batch_size": 8, "learning_rate": 0.1}
    return Run(
        method=method, baseline=baseline, network={"width": 5, "depth": 3, "activation": "tanh"}, **shared | changes
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fcn(4, 3, width=6, depth=3, activation="tanh").double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    inputs = 5 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (7,), generator=generator)


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(model, inputs, targets):
    loss = LOSS.value(model(inputs), targets).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


@pytest.mark.parametrize("baseline", TWIN)
def test_a_twin_without_feedback_is_its_baseline(baseline):
    own = train(run(baseline, baseline, learning_rate=RATES[baseline]))
    twin = train(run("ddpnopt", baseline, learning_rate=RATES[baseline], optimizer={"feedback": "none"}))
    full = train(run("ddpnopt", baseline, learning_rate=RATES[baseline], optimizer={"feedback": "full"}))
    assert twin.train_loss == pytest.approx(own.train_loss, rel=1e-4)
    assert full.train_loss != pytest.approx(own.train_loss, rel=1e-4)


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
def test_a_kronecker_baseline_has_the_runs_own_options(name, model):
    own = {"damping": 0.5, "basis_every": 10}
    optimizer = build(model, LOSS, run(name, name, optimizer={**own, "feedback": "full", "terminal": "ggn"}))
    group = optimizer.param_groups[0]
    assert (group["damping"], group["eigenbasis_interval"]) == (0.5, 10)  # records keep the name of their time
    assert optimizer.feedback == "none"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_the_loss_and_has_a_name(method):
    if method == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("Muon came with torch 2.9")
    rate = RATES.get(method, 0.1)
    result = train(run(method, method if method in TWIN else "sgd", learning_rate=rate, epochs=2))
    assert result.train_loss < result.curves["train_loss"][0]
    assert method in NAMES


@pytest.mark.parametrize(
    ("method", "baseline", "options"),
    [
        ("adam", "adam", {}),
        ("emsa", "emsa", {"stage_iterations": 3}),
        ("ddpnopt", "kfac", {"feedback": "full", "basis_every": 10}),
        ("ddpnopt", "sgd", {"feedback": "full", "terminal": "montecarlo"}),
        ("clip-samples", "sgd", {}),
    ],
)
def test_methods_train_convolutions(method, baseline, options):
    cnn = Run(
        **{
            "item": "test",
            "dataset": "digits",
            "model": "cnn",
            "seed": 0,
            "epochs": 1,
            "batch_size": 32,
            "samples": 64,
        },
        method=method,
        baseline=baseline,
        optimizer=options,
        learning_rate=0.001 if method == "adam" else 0.03,
    )
    result = train(cnn)
    assert result.updates == 2
    assert result.train_loss < result.curves["train_loss"][0]


@pytest.mark.parametrize("baseline", ["rmsprop", "adam"])
def test_a_twin_with_tiny_epsilon_is_near_the_one_without(baseline):
    without, tiny = (
        train(run("ddpnopt", baseline, epsilon=epsilon, learning_rate=1e-3, optimizer={"feedback": "full"}))
        for epsilon in (0.0, 1e-9)
    )
    assert tiny.train_loss == pytest.approx(without.train_loss, rel=1e-2)


def test_clipping_bounds_the_step_and_leaves_small_gradients_alone(model, batch):
    for max_norm, expected in ((1e-3, 1e-4), (1e9, None)):
        optimizer, before, plain = sgd(model), flat(model), gradient(model, *batch)
        clip(optimizer, max_norm)
        Backpropagation(model, LOSS, optimizer).step(*batch)
        length = float((flat(model) - before).norm())
        assert length == pytest.approx(0.1 * float(plain.norm()) if expected is None else expected, rel=1e-3)


def test_the_normalized_gradient_makes_steps_as_long_as_the_learning_rate(model, batch):
    optimizer = sgd(model, 0.25)
    normalize(optimizer)
    for _ in range(3):
        before = flat(model)
        Backpropagation(model, LOSS, optimizer).step(*batch)
        assert float((flat(model) - before).norm()) == pytest.approx(0.25)


def test_warm_up_reaches_the_learning_rate(model, batch):
    optimizer, rates = sgd(model, 0.4), []
    warm_up(optimizer, 4)
    for _ in range(6):
        Backpropagation(model, LOSS, optimizer).step(*batch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_per_sample_clipping_equals_a_loop_over_the_samples(model, batch, max_norm):
    inputs, targets = batch
    samples = [gradient(model, inputs[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))]
    mean = torch.stack([g * min(1.0, max_norm / g.norm()) for g in samples]).mean(0)
    value = LOSS.value(model(inputs), targets).mean().detach()
    before = flat(model)
    assert ClippedSamples(model, LOSS, sgd(model), max_norm).step(*batch) == pytest.approx(float(value))
    torch.testing.assert_close(flat(model), before - 0.1 * mean)


def test_implicit_sgd_steps_along_the_gradient_at_its_end(model, batch):
    lr, before = 0.5, flat(model)
    ImplicitSGD(model, LOSS, lr, iterations=200).step(*batch)
    torch.testing.assert_close(flat(model), before - lr * gradient(model, *batch), atol=1e-4, rtol=1e-3)


def test_rivals_take_their_own_arguments_and_change_the_runs_baseline():
    model, loss = nn.Sequential(nn.Linear(3, 3)), LOSS
    clipped = build(model, loss, run("clip", "ekfac", optimizer={"max_norm": 0.25}))
    assert (clipped.max_grad_norm, clipped.feedback) == (0.25, "none")
    adam = build(model, loss, run("warm-up", "adam"))
    assert isinstance(adam.optimizer, torch.optim.Adam)
    strong = train(replace(run("clip"), optimizer={"max_norm": 1e-6}))
    assert strong.train_loss == pytest.approx(strong.curves["train_loss"][0], abs=1e-4)

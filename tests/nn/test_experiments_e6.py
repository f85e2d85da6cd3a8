"""E6: deconvolution against the adjoint; that δx_max is what K_t responds to most."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ocpkit_nn import cnn
from ocpkit_nn.data import Dataset
from ocpkit_nn.experiments import e6, trial
from ocpkit_nn.experiments.e6 import project
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY
from ocpkit_nn.experiments.run import Options, Result

torch.set_num_threads(1)
RUN = e6.runs(Options(seeds=1))[0]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_without_relu_it_is_the_adjoint():
    modules = [nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 5)]
    network = nn.Sequential(*modules).double()
    image, direction = torch.randn(1, 8, 8, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    leaf = image.clone().requires_grad_()
    (adjoint,) = torch.autograd.grad((network(leaf[None])[0] * direction).sum(), leaf)
    torch.testing.assert_close(project(modules, image, direction), adjoint)


def test_relu_lets_both_signs_back_but_does_not_mix_them():
    image, direction = torch.randn(1, 8, 8), torch.randn(4 * 8 * 8)
    modules = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
    there, other = project(modules, image, direction), project(modules, image, -direction)
    torch.testing.assert_close(there, -other)
    linear = project([modules[0], modules[2]], image, direction)
    assert not torch.allclose(there, linear, atol=1e-3)


def test_unknown_modules_are_named():
    with pytest.raises(ValueError, match="no deconvolution for Tanh"):
        project([nn.Tanh()], torch.zeros(1, 2, 2), torch.zeros(4))


def bars(count=40):
    """Images 8 × 8 of a horizontal bar (label 0), a vertical one (1), and noise (2), as if they were digits."""
    inputs = 0.1 * torch.randn(3 * count, 1, 8, 8)
    targets = torch.arange(3).repeat(count)
    inputs[targets == 0, :, 3] += 1.0
    inputs[targets == 1, :, :, 5] += 1.0
    return Dataset("bars", inputs, targets, inputs, targets, 3)


@pytest.fixture
def trained(monkeypatch):
    data = bars()
    monkeypatch.setattr(trial, "_loaded", lambda name, seed: data)
    monkeypatch.setattr(trial, "load", lambda name, seed=0: data)
    monkeypatch.setattr(e6, "PAIRS", ((0, 1),))
    monkeypatch.setattr(trial, "network", lambda run, data: cnn(1, 8, 3, width=8))
    return e6.train(replace(RUN, samples=None, epochs=20, batch_size=10))


@pytest.mark.slow
def test_what_tells_bars_apart_is_seen(trained):
    (pair,) = trained.measures["pairs"]
    for layer in pair["pair"]:
        assert layer["correlation"] > layer["random_95"], layer
        assert layer["random"] < layer["random_95"]
        assert np.abs(layer["image"]).max() == 1.0
    assert [layer["layer"] for layer in pair["pair"]] == ["Conv2d 2", "Conv2d 3", "Conv2d 4", "Linear 5", "Linear 6"]


def test_the_direction_is_that_of_the_largest_response():
    data, network = bars(), cnn(1, 8, 3, width=8)
    images = [data.train_inputs[data.train_targets == label] for label in (0, 1)]
    before = [p.clone() for p in network.parameters()]
    for outputs in e6.OUTPUTS:
        found = e6.policies(RUN, network, (0, 1), images, outputs)
        assert [len(modules) for _, modules, _ in found] == [2, 4, 6, 9, 11]
        for _, modules, gain in found:
            _, values, (direction, *_) = gain.svd(1)
            shape = nn.Sequential(*modules)(images[0][:1]).shape[1:]
            largest = gain.mean_matvec(direction.float().reshape(shape)).norm()
            assert float(largest) == pytest.approx(float(values[0]), rel=1e-4)
            others = [torch.randn(shape) for _ in range(20)]
            assert all(gain.mean_matvec(other / other.norm()).norm() <= largest for other in others)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before))


def test_correlation_is_numpys_and_blind_to_sign_and_scale():
    a, b = torch.randn(5, 5), torch.randn(5, 5)
    expected = abs(np.corrcoef(a.flatten(), b.flatten())[0, 1])
    assert e6.correlation(a, b) == pytest.approx(e6.correlation(-3 * a + 1, b)) == pytest.approx(expected)
    assert e6.correlation(torch.ones(5, 5), b) == 0.0


@pytest.mark.parametrize(("above", "verdict"), [(20, HOLDS), (15, PARTLY), (5, FAILS)])
def test_it_judges_by_its_rule(above, verdict, tmp_path, monkeypatch):
    monkeypatch.setattr(e6, "_draw", lambda *_: None)
    values = iter([0.9] * above + [0.1] * (20 - above))

    def layers(value):
        return [{"layer": f"{t}", "correlation": value(), "random": 0.1, "random_95": 0.2} for t in range(5)]

    pairs = [{"pair": layers(lambda: next(values)), "all": layers(lambda: 0.0)} for _ in e6.PAIRS]
    result = Result(RUN, 1.0, 50.0, 1, 0.0, {}, {"pairs": pairs}, {})
    assert e6.report([result], tmp_path).verdict == verdict

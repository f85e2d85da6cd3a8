"""The batch as one stacked state: where it is Alg. 3, where it is the baseline, and where it differs from both.

`test_core_equivalence` holds it to the core's recursion on the stacked `Problem`.
"""

from copy import deepcopy

import pytest
import torch
from torch import nn

from ocpkit_nn import CrossEntropy, DDPNOpt, MeanSquaredError, fcn
from ocpkit_nn.experiments.stacked import Stacked

torch.set_num_threads(1)
LOSS = CrossEntropy()
CURVATURES = ["identity", "diagonal", "adam", "kronecker", "ekfac"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fcn(4, 3, width=6, depth=4, activation="tanh").double()


def draw(count):
    generator = torch.Generator().manual_seed(1)
    inputs = 3 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (count,), generator=generator)


def trained(kind, model, batch, steps=3, loss=LOSS, **options):
    own = deepcopy(model)
    optimizer = kind(own, loss, 0.3, **options)
    for _ in range(steps):
        optimizer.step(*batch)
    return torch.cat([p.detach().flatten() for p in own.parameters()])


@pytest.mark.parametrize(("feedback", "terminal"), [("full", "empirical"), ("value", "empirical"), ("full", "ggn")])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_one_sample_is_alg_3(model, curvature, feedback, terminal):
    options = {"curvature": curvature, "feedback": feedback, "terminal": terminal}
    own, paper = (trained(kind, model, draw(1), **options) for kind in (Stacked, DDPNOpt))
    torch.testing.assert_close(own, paper)


@pytest.mark.parametrize("open_loop", ["baseline", "levenberg"])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_without_terminal_curvature_it_is_the_baseline(model, curvature, open_loop):
    own = trained(Stacked, model, draw(5), curvature=curvature, open_loop=open_loop, curvature_scale=0.0)
    baseline = trained(DDPNOpt, model, draw(5), curvature=curvature, feedback="none")
    torch.testing.assert_close(own, baseline)
    torch.testing.assert_close(trained(Stacked, model, draw(5), curvature=curvature, feedback="none"), baseline)


@pytest.mark.parametrize("terminal", ["empirical", "ggn"])
@pytest.mark.parametrize("curvature", ["identity", "adam"])
def test_copies_of_a_sample_are_one_sample(model, curvature, terminal):
    """J is the same function; Alg. 3, in which a sample does not know of its copies, damps less."""
    one, options = draw(1), {"curvature": curvature, "terminal": terminal}
    copies = one[0].repeat(4, 1), one[1].repeat(4)
    alone = trained(Stacked, model, one, **options)
    torch.testing.assert_close(trained(Stacked, model, copies, **options), alone)
    assert (trained(DDPNOpt, model, copies, **options) - alone).norm() > 1e-3


def test_the_weights_of_the_samples_are_those_of_the_kernel(model):
    """With one column each, V_x^i = w_i g_i / B with w = (I + Σ C)⁻¹ 1, here for the first layer's gradient."""
    inputs, targets = draw(5)
    gradients = []
    for i in range(5):
        value = LOSS.value(model(inputs[i : i + 1]), targets[i : i + 1]).sum()
        parts = torch.autograd.grad(value, list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    G, lr, first = torch.stack(gradients), 0.3, model[0].weight.numel() + model[0].bias.numel()
    behind = G[:, first:]
    w = torch.linalg.solve(torch.eye(5, dtype=G.dtype) + lr * behind @ behind.T / 5, torch.ones(5, dtype=G.dtype))
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    moved = trained(Stacked, model, (inputs, targets), steps=1, curvature="identity") - before
    torch.testing.assert_close(moved[:first], -lr * (w @ G[:, :first]) / 5)
    assert (w - 1).abs().max() > 0.1


def test_orthogonal_gradients_are_damped_as_in_alg_3_and_their_feedback_is_summed_and_not_averaged():
    """Two samples that go through units of their own on every layer."""
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3))).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.block_diag(*torch.randn(2, 2, 2, dtype=torch.float64)))
    batch = tuple(torch.block_diag(*torch.randn(2, 1, 2, dtype=torch.float64)) for _ in range(2))

    def controls(kind, feedback):
        options = {"steps": 1, "loss": MeanSquaredError(), "curvature": "identity", "feedback": feedback}
        return trained(kind, model, batch, **options).reshape(3, 16)

    own, paper, baseline = (controls(*each) for each in ((Stacked, "value"), (DDPNOpt, "value"), (DDPNOpt, "none")))
    torch.testing.assert_close(own, paper)
    assert (baseline - own).norm() > 1e-3
    summed, averaged = controls(Stacked, "full") - own, controls(DDPNOpt, "full") - paper
    assert averaged[1].norm() > 1e-4
    torch.testing.assert_close(summed[1], 2 * averaged[1])  # the second layer, which sees the first one's step alone


def test_the_minimizer_of_the_model_is_shorter_than_the_baselines_step(model):
    """k = −Q_uu⁻¹ g with Q_uu ≥ M/η, on the last layer, which no feedback from the ones before has reached."""
    lengths = []
    for open_loop in ("baseline", "levenberg"):
        moved = trained(Stacked, model, draw(6), steps=1, curvature="identity", feedback="value", open_loop=open_loop)
        lengths.append((moved - torch.cat([p.detach().flatten() for p in model.parameters()]))[-21:].norm())
    assert 0 < lengths[1] < 0.99 * lengths[0]


@pytest.mark.parametrize(
    "options",
    [{"dynamics": "second"}, {"control_hessian": "literal"}, {"tikhonov": 1e-3}, {"curvature": "exact"}],
)
def test_what_has_no_stacked_form_is_refused(model, options):
    with pytest.raises(ValueError, match="stacked problem needs"):
        Stacked(model, LOSS, 0.1, **options)


def test_unknown_open_loops_and_batch_norm_are_refused(model):
    with pytest.raises(ValueError, match="open_loop must be one of"):
        Stacked(model, LOSS, 0.1, open_loop="newton")
    normed = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).double()
    with pytest.raises(ValueError, match="batch norm"):
        Stacked(normed, LOSS, 0.1, curvature="identity").step(*draw(6))

"""DDPNOpt2nd (Eq. 26, 27): derivatives of the Bellman objective against `torch.func.hessian`, and steps by hand.

The oracle expands Q_t(x, u) = s V_x·(f(x, u) − y) + ½ (f − y)ᵀ V_xx (f − y), y = f(x_t, u_t), sample by sample; s is
the sample's share of the batch's curvature, which multiplies all that is of second order in the layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near, control_of, flat
from nn.strategies import Case, few_examples, randn, randomize, seeds
from ocpkit.recursion.bellman import ActionValue, BellmanStep, minimize
from ocpkit_nn.layers.losses import CrossEntropy, FunctionLoss, MaxMahalanobisCenter, MeanSquaredError
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.curvature import RULES

RATE = 0.07
LOSSES = {"ce": CrossEntropy(), "mse": MeanSquaredError(), "mmc": MaxMahalanobisCenter(3, 3, 4.0)}


@st.composite
def perceptrons(draw: st.DrawFn) -> Case:
    """Linear layers with and without biases; Tanh, Sigmoid, ReLU or nothing after each; three classes."""
    sizes = [*draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)), 3]
    modules: list[nn.Module] = []
    for n, following in pairwise(sizes):
        modules.append(nn.Linear(n, following, bias=draw(st.booleans())))
        modules += [kind() for kind in draw(st.sampled_from([[nn.Tanh], [nn.Sigmoid], [nn.ReLU], []]))]
    model = nn.Sequential(*modules)
    generator = randomize(model, draw(seeds))
    batch = draw(st.integers(1, 3))
    return Case(model, randn(generator, batch, sizes[0]), torch.randint(3, (batch,), generator=generator))


@dataclass
class Recorder:
    """The steps of the core's `minimize`, the last stage first."""

    steps: list[BellmanStep] = field(default_factory=list)

    def __call__(self, t: int, Q: ActionValue, curvature: Any, **options: Any) -> BellmanStep:
        self.steps.append(minimize(t, Q, curvature, **options))
        return self.steps[-1]


def layers_of(model: nn.Sequential) -> list[tuple[nn.Linear, nn.Module]]:
    """Every Linear layer with its activation."""
    pairs = []
    for module in model:
        if isinstance(module, nn.Linear):
            pairs.append((module, nn.Identity()))
        else:
            pairs[-1] = (pairs[-1][0], module)
    return pairs


def linear(module: nn.Linear, x: Tensor, u: Tensor) -> Tensor:
    matrix = u.reshape(module.out_features, -1)
    h = matrix[:, : module.in_features] @ x
    return h if module.bias is None else h + matrix[:, -1]


def positive_part(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors @ torch.diag(values.clamp_min(0)) @ vectors.T


class Oracle:
    """Backward recursion of one sample with dense matrices and M/η = I/η."""

    def __init__(self, model: nn.Sequential, x: Tensor, Vx: Tensor, Vxx: Tensor, scale: float, proximal: bool) -> None:
        self.layers, self.scale, self.proximal = layers_of(model), scale, proximal
        self.states = [x]
        for module, activation in self.layers:
            self.states.append(activation(linear(module, self.states[-1], control_of(module))))
        self.steps: list[dict[str, Tensor]] = []
        for t in reversed(range(len(self.layers))):
            step = self._expand(t, Vx, Vxx)
            m = len(step["u"])
            H = torch.eye(m, dtype=Vx.dtype) / RATE + (step["uu"] if proximal else 0)
            step["K"] = -torch.linalg.solve(H, step["ux"])
            Vx = step["x"] + step["K"].T @ step["u"]
            Vxx = step["xx"] + step["K"].T @ step["ux"]
            step["Vx"], step["Vxx"] = Vx, Vxx
            self.steps.insert(0, step)

    def _expand(self, t: int, Vx: Tensor, Vxx: Tensor) -> dict[str, Tensor]:
        """Derivatives of Q: through σ at h, with the negative eigenvalues of V_hh clipped, then through g."""
        (module, activation), x, y = self.layers[t], self.states[t], self.states[t + 1]
        u = control_of(module)
        h = linear(module, x, u)

        def after(z: Tensor, first: float) -> Tensor:
            change = activation(z) - y
            return first * Vx @ change + 0.5 * change @ Vxx @ change

        Vh = torch.func.grad(after)(h, 1.0)
        Vhh = positive_part(torch.func.hessian(after)(h, self.scale))

        def objective(z: Tensor, first: float) -> Tensor:
            change = linear(module, z[: len(x)], z[len(x) :]) - h
            return first * Vh @ change + 0.5 * change @ Vhh @ change

        z, n = torch.cat([x, u]), len(x)
        gradient = torch.func.grad(objective)(z, 1.0)
        hessian = torch.func.hessian(objective)(z, self.scale)
        return {
            "x": gradient[:n],
            "u": gradient[n:],
            "xx": hessian[:n, :n],
            "ux": hessian[n:, :n],
            "uu": hessian[n:, n:],
        }


def oracles(case: Case, loss: Any, terminal: str, proximal: bool) -> list[Oracle]:
    with torch.no_grad():
        outputs = case.model(case.inputs)
    gradient, scale = loss.gradient(outputs, case.targets), 1 / len(outputs)
    hessian = (
        gradient[:, :, None] * gradient[:, None] if terminal == "empirical" else loss.hessian(outputs, case.targets)
    )
    return [
        Oracle(case.model, x, Vx, scale * Vxx, scale, proximal) for x, Vx, Vxx in zip(case.inputs, gradient, hessian)
    ]


def optimizer_of(case: Case, loss: Any, terminal: str, proximal: bool, feedback: str = "full") -> DDPNOpt:
    hessian = "proximal" if proximal else "literal"
    options: dict[str, Any] = {"terminal": terminal, "control_hessian": hessian, "feedback": feedback}
    return DDPNOpt(case.model, loss, lr=RATE, curvature="identity", dynamics="second", **options)


every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
terminals = st.sampled_from(["empirical", "ggn"])


@pytest.mark.slow
@every_loss
@few_examples
@given(case=perceptrons(), terminal=terminals)
def test_derivatives_of_the_bellman_objective_are_torch_funcs(loss: Any, case: Case, terminal: str) -> None:
    """Q_x, Q_u, Q_xx, Q_ux, Q_uu and V at every stage and sample; stage 0's V_h·g_ux is left out, as δx_0 = 0."""
    expected, recorder = oracles(case, loss, terminal, True), Recorder()
    with patch("ocpkit_nn.passes.second_order.minimize", recorder):
        optimizer_of(case, loss, terminal, True).step(case.inputs, case.targets)
    last = len(recorder.steps) - 1
    for place, step in enumerate(recorder.steps):
        t, Q = last - place, step.Q
        q_u, right = flat(Q.ux.left), Q.ux.right
        columns = flat(Q.uu.left)
        for i, oracle in enumerate(expected):
            reference = oracle.steps[t]
            assert_near(Q.x[i], reference["x"])
            assert_near(flat(Q.u)[i], reference["u"])
            assert_near(Q.xx[i], reference["xx"])
            assert_near(columns[i] @ columns[i].T, reference["uu"])
            if t > 0:
                assert_near(q_u[i] @ right[i].T, reference["ux"])
                assert_near(step.value.x[i], reference["Vx"])
                assert_near(step.value.xx[i], reference["Vxx"])


@pytest.mark.slow
@every_loss
@few_examples
@given(
    case=perceptrons(),
    terminal=terminals,
    proximal=st.booleans(),
    feedback=st.sampled_from(["full", "value"]),
)
def test_a_step_is_formed_by_hand(loss: Any, case: Case, terminal: str, proximal: bool, feedback: str) -> None:
    """u ← u − η E[Q_u] + E[K_i δx_i] along the new trajectory."""
    expected, x, controls = oracles(case, loss, terminal, proximal), list(case.inputs), []
    for t, (module, activation) in enumerate(expected[0].layers):
        u = control_of(module) - RATE * torch.stack([oracle.steps[t]["u"] for oracle in expected]).mean(0)
        if feedback == "full" and t > 0:
            changes = [o.steps[t]["K"] @ (x_i - o.states[t]) for o, x_i in zip(expected, x)]
            u = u + torch.stack(changes).mean(0)
        controls.append(u)
        x = [activation(linear(module, x_i, u)) for x_i in x]
    optimizer_of(case, loss, terminal, proximal, feedback).step(case.inputs, case.targets)
    for (module, _), control in zip(layers_of(case.model), controls):
        assert_near(control_of(module), control, 1e-8)


@few_examples
@given(case=perceptrons(), seed=seeds)
def test_gains_are_operators(case: Case, seed: int) -> None:
    """Products with K_i, its adjoint and the singular values of the mean gain against the oracle's matrices."""
    expected = oracles(case, CrossEntropy(), "ggn", True)
    optimizer = optimizer_of(case, CrossEntropy(), "ggn", True)
    optimizer.step(case.inputs, case.targets)
    generator = torch.Generator().manual_seed(seed)
    for t, gain in enumerate(optimizer.policies()):
        assert (gain is None) == (t == 0)
        if gain is None:
            continue
        K = torch.stack([oracle.steps[t]["K"] for oracle in expected])
        x, u = randn(generator, len(K), K.shape[2]), randn(generator, *gain.control.shape)
        assert_near(gain.matvec(x).flatten(), torch.einsum("bmn,bn->m", K, x) / len(K))
        assert_near(gain.rmatvec(u), torch.einsum("bmn,m->bn", K, u.flatten()) / len(K))
        leading = torch.linalg.svdvals(K.mean(0))[:2]
        U, values, Vt = gain.svd(2)
        assert (U.shape[0], Vt.shape[1]) == K.shape[1:]
        assert_near(values, leading, 1e-7)


def test_the_activations_curvature_is_there_and_its_negative_part_is_clipped() -> None:
    """V_x·σ'' has signs (+, +, −) at the outputs: V_hh, of rank one without it, gets rank two, not three."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid()).double()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-2.0, 2.0, 2.0]))
    loss, inputs, recorder = MaxMahalanobisCenter(3, 3), torch.ones(1, 2, dtype=torch.float64), Recorder()
    y = model(inputs).detach()
    bend = loss.gradient(y, torch.tensor([1])) * y * (1 - y) * (1 - 2 * y)
    assert torch.equal(bend.sign(), torch.tensor([[1.0, 1.0, -1.0]]).double())
    optimizer = DDPNOpt(model, loss, curvature="identity", dynamics="second", terminal="empirical")
    with patch("ocpkit_nn.passes.second_order.minimize", recorder):
        optimizer.step(inputs, torch.tensor([1]))
    columns = flat(recorder.steps[0].Q.uu.left)[0]
    eigenvalues = torch.linalg.eigvalsh(columns @ columns.T)
    assert eigenvalues.min() > -1e-9
    assert (eigenvalues > 1e-9).sum() == 2


@pytest.mark.parametrize("curvature", RULES)
def test_every_curvature_takes_second_order_dynamics(curvature: str) -> None:
    """The loss falls on a small separable problem, with and without the second forward pass."""
    for feedback in ("full", "value"):
        model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3))
        generator = randomize(model, 1)
        inputs = randn(generator, 24, 2)
        targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
        rate = {"identity": 0.5, "exact": 0.5}.get(curvature, 0.03)
        optimizer = DDPNOpt(model, lr=rate, curvature=curvature, dynamics="second", feedback=feedback)
        losses = [optimizer.step(inputs, targets) for _ in range(40)]
        assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("feedback", ["full", "value"])
def test_clipping_scales_the_curvature_of_the_layers_too(feedback: str) -> None:
    """`max_grad_norm` is the cost c·φ: V_x·σ_hh and V_h·g_ux shrink by c, as ∇φ and ∇²φ do, and not by c²."""
    models, (inputs, targets) = [], (randn(torch.Generator().manual_seed(0), 6, 4), torch.tensor([0, 1, 2] * 2))
    for _ in range(2):
        models.append(nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3), nn.Tanh()))
        randomize(models[-1], 0)
    CrossEntropy().value(models[0](inputs), targets).mean().backward()
    norm = float(torch.cat([p.grad.flatten() for p in models[0].parameters() if p.grad is not None]).norm())
    clip = 0.1 * norm / (norm + 1e-6)
    scaled = FunctionLoss(lambda x, y: clip * nn.functional.cross_entropy(x, y, reduction="none"))
    options: dict[str, Any] = {"lr": 5.0, "curvature": "identity", "feedback": feedback, "terminal": "ggn"}
    before = nn.utils.parameters_to_vector(models[0].parameters()).detach()
    DDPNOpt(models[0], max_grad_norm=0.1 * norm, dynamics="second", **options).step(inputs, targets)
    DDPNOpt(models[1], scaled, dynamics="second", **options).step(inputs, targets)
    ours, expected = (nn.utils.parameters_to_vector(model.parameters()).detach() - before for model in models)
    assert_near(ours, expected, 1e-10)


def test_tikhonov_is_added_to_the_dense_value() -> None:
    """V_xx + ε I (Alg. 3, line 12): ‖x̄_i‖² ε more along every row of a single layer's Q_uu."""
    (inputs, targets), matrices = (torch.tensor([[1.0, 2.0], [0.5, -1.0]]).double(), torch.tensor([0, 1])), []
    for tikhonov in (0.0, 0.5):
        model, recorder = nn.Sequential(nn.Linear(2, 3)), Recorder()
        randomize(model, 3)
        with patch("ocpkit_nn.passes.second_order.minimize", recorder):
            optimizer = DDPNOpt(model, curvature="identity", dynamics="second", terminal="ggn", tikhonov=tikhonov)
            optimizer.step(inputs, targets)
        columns = flat(recorder.steps[0].Q.uu.left)
        matrices.append(columns @ columns.mT)
    bar = torch.cat([inputs, inputs.new_ones(2, 1)], dim=1)
    for i in range(2):
        expected = 0.5 * torch.kron(torch.eye(3).double(), torch.outer(bar[i], bar[i]))
        assert_near(matrices[1][i] - matrices[0][i], expected)


@pytest.mark.parametrize(
    ("model", "stage"),
    [
        (nn.Sequential(nn.Conv1d(1, 1, 1), nn.Flatten(), nn.Linear(3, 2)), r"0 \(Conv1d\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2)), r"0 \(Linear\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.LayerNorm(3)), r"2 \(LayerNorm\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.ReLU()), r"0 \(Linear\)"),
    ],
)
def test_other_layers_are_refused_with_the_way_out(model: nn.Sequential, stage: str) -> None:
    with pytest.raises(ValueError, match=rf"stage {stage}: second-order dynamics are for Linear.*dynamics='first'"):
        DDPNOpt(model, dynamics="second")

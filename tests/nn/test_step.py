"""Whole steps of DDPNOpt against Alg. 3 with every matrix formed."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near, kronecker
from nn.recursion import TERMINALS, DenseOperator, Net
from nn.strategies import Case, few_examples, networks, perceptrons
from ocpkit.recursion.bellman import ActionValue, backward_pass
from ocpkit_nn.optim.ddpnopt import DDPNOpt


def first_step_metric(
    name: str, mean: Tensor, Qu: Tensor, Quu: Tensor, x: Tensor, factored: bool
) -> tuple[Tensor, Tensor]:
    """M/η and the direction of every curvature at its first step, as matrices (Table 2)."""
    lr, damping, eps = OPTIONS["lr"], OPTIONS["damping"], OPTIONS["eps"]
    unit = torch.eye(len(mean), dtype=torch.float64)
    if name == "identity":
        return unit / lr, mean
    if name == "diagonal":
        return torch.diag((0.01 * mean**2).sqrt() + eps) / lr, mean
    if name == "adam":
        return torch.diag(mean.abs() + eps) / lr, mean
    if name == "exact":  # without feedback Quu is the empirical Q_u Q_uᵀ
        return (Quu.mean(0) + damping * unit) / lr, mean
    if not factored:
        return (torch.diag((Qu**2).mean(0)) + damping * unit) / lr, mean
    bar = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    v = Qu.reshape(len(x), -1, bar.shape[1])[:, :, -1]  # the bias' gradient is V_h
    A, S = bar.T @ bar / len(x), v.T @ v / len(x)
    if name == "kronecker":
        return (kronecker(S, A) + damping * unit) / lr, mean
    basis = kronecker(torch.linalg.eigh(S)[1], torch.linalg.eigh(A)[1])
    scales = ((Qu @ basis) ** 2).mean(0)
    return basis @ torch.diag(scales + damping) @ basis.T / lr, mean


OPTIONS: dict[str, Any] = {"lr": 0.05, "damping": 0.1, "eps": 1e-3}


def step_by_hand(
    net: Net, curvature: str, *, proximal: bool, tikhonov: float, feedback: str, weight_decay: float
) -> list[Tensor]:
    """Alg. 3 with every matrix formed; returns the new controls (m,)."""
    feedforward: dict[int, Tensor] = {}
    mixed = feedback != "none"

    def rule(t: int, Q: ActionValue) -> tuple[DenseOperator, Tensor]:
        factored = type(net.stages[t].layer.module) is nn.Linear
        mean = Q.u.mean(0) + weight_decay * net.dense[t].control
        Quu = Q.uu if mixed else Q.u[:, :, None] * Q.u[:, None]
        M, direction = first_step_metric(curvature, mean, Q.u, Quu, net.dense[t].inputs, factored)
        feedforward[t] = -torch.linalg.solve(M, direction)
        return DenseOperator(M + Q.uu if proximal else M.expand_as(Q.uu)), Q.u

    is_parallel = mixed and net.is_rank_one and proximal and curvature != "exact" and tikhonov == 0
    between_stages = net.through_batch_in_parallel if is_parallel else net.through_batch
    steps = backward_pass(
        net.expansions, net.terminal, rule, feedback=mixed, tikhonov=tikhonov, between_stages=between_stages
    )
    x, controls = net.dense[0].inputs, []
    for t, stage in enumerate(net.dense):
        u = stage.control + feedforward[t]
        if feedback == "full":
            deviation = (x - stage.inputs).flatten(1)
            u = u + torch.einsum("bmn,bn->bm", steps[t].K, deviation).mean(0)
        controls.append(u)
        x = stage.batch(x, u)
    return controls


def assert_step_is_by_hand(case: Case, options: dict[str, Any], tolerance: float = 1e-8) -> None:
    net = Net(case, options["terminal"])
    names = ("curvature", "tikhonov", "feedback", "weight_decay")
    proximal = options["control_hessian"] == "proximal"
    expected = step_by_hand(net, proximal=proximal, **{name: options[name] for name in names})
    torch.manual_seed(3)  # the masks of `Net`
    generator = torch.Generator().manual_seed(0)
    optimizer = DDPNOpt(case.model, generator=generator, **OPTIONS, **TERMINALS[options["terminal"]], **options)
    optimizer.step(case.inputs, case.targets)
    for stage, control in zip(optimizer.stages, expected):
        assert_near(stage.layer.matrix().flatten(), control, tolerance)


@pytest.mark.parametrize("curvature", ["identity", "diagonal", "adam", "exact"])
@few_examples
@given(
    case=networks(max_batch=3),
    terminal=st.sampled_from(list(TERMINALS)),
    feedback=st.sampled_from(["full", "value", "none"]),
    tikhonov=st.sampled_from([0.0, 0.0, 1e-2]),
    weight_decay=st.sampled_from([0.0, 0.1]),
)
def test_a_step_is_alg_3_formed_by_hand(
    curvature: str, case: Case, terminal: str, feedback: str, tikhonov: float, weight_decay: float
) -> None:
    """δu = k + E[K_i δx_i] with the second forward pass, on networks of every kind of stage."""
    assert_step_is_by_hand(
        case,
        {
            "curvature": curvature,
            "terminal": terminal,
            "feedback": feedback,
            "tikhonov": tikhonov,
            "weight_decay": weight_decay,
            "control_hessian": "proximal",
        },
    )


@pytest.mark.parametrize("curvature", ["kronecker", "ekfac"])
@few_examples
@given(
    case=perceptrons(), terminal=st.sampled_from(list(TERMINALS)), feedback=st.sampled_from(["full", "value", "none"])
)
def test_a_step_with_kronecker_factors_is_alg_3_formed_by_hand(
    curvature: str, case: Case, terminal: str, feedback: str
) -> None:
    assert_step_is_by_hand(
        case,
        {
            "curvature": curvature,
            "terminal": terminal,
            "feedback": feedback,
            "tikhonov": 0.0,
            "weight_decay": 0.0,
            "control_hessian": "proximal",
        },
        1e-7,
    )


@few_examples
@given(case=perceptrons(), terminal=st.sampled_from(["empirical", "ggn"]))
def test_a_literal_step_is_alg_3_as_printed(case: Case, terminal: str) -> None:
    """At a rate where c stays below one."""
    options = {
        "terminal": terminal,
        "feedback": "full",
        "tikhonov": 0.0,
        "weight_decay": 0.0,
        "control_hessian": "literal",
    }
    case = Case(case.model, 0.3 * case.inputs, case.targets)
    with patch.dict(OPTIONS, lr=1e-3):
        assert_step_is_by_hand(case, {"curvature": "identity", **options})

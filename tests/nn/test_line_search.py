"""The optional line search of DDPNOpt: the batch's loss never rises, and a good step is the plain one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks
from ocpkit_nn.layers.losses import CrossEntropy
from ocpkit_nn.optim.ddpnopt import DDPNOpt

SEED = 5  # of dropout


def controls(optimizer: DDPNOpt) -> torch.Tensor:
    return torch.cat([stage.layer.matrix().flatten() for stage in optimizer.stages])


def loss_again(optimizer: DDPNOpt, case: Case) -> float:
    """Loss of the batch with the masks and statistics of the last step."""
    x = case.inputs
    with torch.no_grad():
        for module in optimizer.preparation:
            x = module(x)
        for stage in optimizer.stages:
            x = stage.second_forward(x)
        return float(CrossEntropy().value_and_gradient(x, case.targets)[0].mean())


@few_examples
@given(case=networks(), lr=st.sampled_from([1e-2, 1.0, 100.0]), feedback=st.sampled_from(["full", "value", "none"]))
def test_the_loss_of_the_batch_never_rises(case: Case, lr: float, feedback: str) -> None:
    torch.manual_seed(SEED)
    optimizer = DDPNOpt(case.model, lr=lr, curvature="identity", feedback=feedback, line_search=True)
    before = optimizer.step(case.inputs, case.targets)
    assert loss_again(optimizer, case) <= before + 1e-12


def small(lr: float, **options: object) -> tuple[DDPNOpt, Case]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    inputs, targets = torch.randn(16, 3, dtype=torch.float64), torch.randint(4, (16,))
    return DDPNOpt(model, lr=lr, curvature="identity", **options), Case(model, inputs, targets)  # type: ignore[arg-type]


@pytest.mark.parametrize("feedback", ["full", "none"])
def test_a_step_that_lowers_the_loss_is_taken_whole(feedback: str) -> None:
    plain, case = small(1e-2, feedback=feedback)
    plain.step(case.inputs, case.targets)
    searched, case = small(1e-2, feedback=feedback, line_search=True)
    searched.step(case.inputs, case.targets)
    assert_near(controls(searched), controls(plain))


def test_a_step_that_raises_it_is_halved_and_one_that_never_lowers_it_is_not_taken() -> None:
    plain, case = small(300.0, feedback="none")
    start = controls(plain)
    before = plain.step(case.inputs, case.targets)
    assert loss_again(plain, case) > before
    searched, case = small(300.0, feedback="none", line_search=True)
    searched.step(case.inputs, case.targets)
    full, taken = controls(plain) - start, controls(searched) - start
    share = float(taken @ full / (full @ full))
    assert 0 < share < 1
    assert_near(taken, share * full)
    assert -torch.tensor(share).log2() % 1 == pytest.approx(0.0, abs=1e-4)
    hopeless, case = small(1e15, feedback="none", line_search=True)
    hopeless.step(case.inputs, case.targets)
    assert_near(controls(hopeless), start)


def test_it_is_refused_with_separable_gains() -> None:
    with pytest.raises(ValueError, match="no line search"):
        small(0.1, gains="separable", line_search=True)

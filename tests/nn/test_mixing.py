"""Modules that mix the samples of a batch are no stages: an error instead of a wrong step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.strategies import Case, Residual, few_examples, networks, randn, randomize
from ocpkit_nn.optim.ddpnopt import DDPNOpt


class Centerd(Residual):
    """Subtracts the batch's mean."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x - x.mean(0))


class Gate(Residual):
    """Branches on the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if x.sum() > 0 else x


class FixedBatch(Residual):
    """Knows only batches of four."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.reshape(4, -1))


class Ranks(nn.Module):
    """Has no parameters and sorts the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(0)[0]


class Overwrites(Residual):
    """Changes its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(nn.functional.leaky_relu_(x, 0.5))


INPUTS = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, 1.0], [-1.0, 0.4, -3.0], [2.0, 2.0, 2.0]], dtype=torch.float64)


def test_a_module_that_overwrites_its_input_is_told_how_not_to() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Overwrites(nn.Linear(3, 3)), nn.Linear(3, 2))
    randomize(model, 0)
    with pytest.raises(ValueError, match=r"stage 1 \(Overwrites\).*overwrites its input .*inplace=False"):
        DDPNOpt(model).step(INPUTS, torch.tensor([0, 1, 1, 0]))


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize(
    ("block", "stage"),
    [
        (Centerd(nn.Linear(3, 3)), "1 (Centerd)"),
        (nn.Softmax(0), "0 (Linear) with Softmax"),
        (Ranks(), "0 (Linear) with Ranks"),
    ],
)
def test_mixing_is_an_error_before_anything_changes(block: nn.Module, stage: str, micro_batch: int | None) -> None:
    model = nn.Sequential(nn.Linear(3, 3), block, nn.Linear(3, 2))
    randomize(model, 0)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = DDPNOpt(model, micro_batch=micro_batch)
    for _ in range(2):
        with pytest.raises(ValueError, match="samples depend on each other") as error:
            optimizer.step(INPUTS, torch.tensor([0, 1, 1, 0]))
        assert f"stage {stage}" in str(error.value)
        assert "do that before the first layer, or per sample" in str(error.value)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_a_module_that_knows_one_size_of_batch_is_told_so() -> None:
    model = nn.Sequential(nn.Linear(3, 3), FixedBatch(nn.Linear(3, 3)), nn.Linear(3, 2))
    randomize(model, 0)
    with pytest.raises(ValueError, match=r"stage 1 \(FixedBatch\): .* fails on a single sample, shape \(1, 3\)"):
        DDPNOpt(model).step(INPUTS, torch.tensor([0, 1, 1, 0]))


@few_examples
@given(batch=st.integers(2, 9), reader=st.integers(0, 8), read=st.integers(0, 8), scale=st.sampled_from([1e-8, 1.0]))
def test_any_sample_that_reads_any_other_is_found(batch: int, reader: int, read: int, scale: float) -> None:
    """Whatever the size of the states: the comparison has their unit."""
    reader, read = reader % batch, read % batch
    if reader == read:
        read = (read + 1) % batch

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = (torch.arange(len(x)) == reader)[:, None]
            return scale * torch.where(rows, x + x[read], x)

    model = nn.Sequential(nn.Linear(3, 3), Reads(), nn.Linear(3, 2))
    generator = randomize(model, 0)
    with pytest.raises(ValueError, match=rf"stage 0 \(Linear\) with Reads: .* output of sample {reader} differs"):
        DDPNOpt(model).step(randn(generator, batch, 3), torch.zeros(batch, dtype=torch.int64))


def test_a_branch_on_the_batch_is_an_error_whichever_way_it_went() -> None:
    """Where the first sample alone goes the same way, the derivative of one sample at a time cannot branch."""
    for sign in (1.0, -1.0):
        model = nn.Sequential(nn.Linear(3, 3), Gate(nn.Linear(3, 3)), nn.Linear(3, 2)).double()
        nn.init.eye_(model[0].weight)
        nn.init.zeros_(model[0].bias)
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises((ValueError, RuntimeError), match=r"stage 1 \(Gate\)"):
            DDPNOpt(model).step(sign * INPUTS, torch.tensor([0, 1, 1, 0]))
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_what_prepares_the_inputs_may_mix() -> None:
    model = nn.Sequential(Ranks(), nn.Linear(3, 2)).double()
    assert DDPNOpt(model).step(INPUTS, torch.tensor([0, 1, 1, 0])) > 0


@few_examples
@given(case=networks())
def test_no_other_network_is_refused(case: Case) -> None:
    """Batch norm and dropout with their statistics and masks included, in float64 and float32."""
    for dtype in (torch.float64, torch.float32):
        DDPNOpt(case.model.to(dtype)).step(case.inputs.to(dtype), case.targets)

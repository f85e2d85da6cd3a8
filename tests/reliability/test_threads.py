"""With any number of threads a solve has the same bits; a training run repeats with as many, and rounds with others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from ocpkit import DDP, models
from ocpkit_nn.optim.ddpnopt import DDPNOpt

THREADS = (1, 2)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "vm"])
def test_a_solve_has_the_same_bits(engine: str) -> None:
    """Matrices of a stage are too small to be shared among threads."""
    controls = []
    for threads in THREADS:
        with threadpool_limits(threads):
            solution = DDP(engine=engine, max_iterations=6).solve(models.get("quadrotor").build())
        controls.append(np.stack(solution.controls))
    np.testing.assert_array_equal(*controls)


@pytest.mark.slow
@pytest.mark.parametrize("curvature", ["diagonal", "kronecker"])
def test_a_training_run_repeats_with_as_many_threads_and_rounds_with_others(curvature: str) -> None:
    def weights(threads: int) -> torch.Tensor:
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 10)).double()
        optimizer = DDPNOpt(model, curvature=curvature)
        for _ in range(3):
            inputs = torch.randn(128, 64, generator=generator, dtype=torch.float64)
            optimizer.step(inputs, torch.randint(10, (128,), generator=generator))
        return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])

    once, again, others = weights(1), weights(1), weights(2)
    assert torch.equal(once, again)
    torch.testing.assert_close(others, once, rtol=0, atol=1e-10)

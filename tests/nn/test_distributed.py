"""N processes take the step of one with the whole batch, and survive the loss of one of them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.strategies import randomize
from ocpkit.errors import ProblemError
from ocpkit_nn.distributed import Processes, ProcessLost, processes
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes import eigenbases
from ocpkit_nn.training import checkpoint
from ocpkit_nn.training.options import TrainOptions
from ocpkit_nn.training.train import train as train_run
from ocpkit_nn.training.training import Training, reproducible

torch.set_num_threads(1)
TORCHS_OWN = "ignore:You are using `torch.load`:FutureWarning"  # said by torch 2.4 and 2.5 where objects are gathered

OPTIONS: dict[str, dict[str, Any]] = {
    f"{curvature}, {feedback}": {"curvature": curvature, "feedback": feedback}
    for curvature, feedback in itertools.product(
        ("identity", "diagonal", "adam", "kronecker", "ekfac"), ("full", "value", "none")
    )
} | {
    "bases kept": {"curvature": "kronecker", "eigenbasis_interval": 2},
    "bases kept, ekfac": {"curvature": "ekfac", "eigenbasis_interval": 2},
    "ggn": {"terminal": "ggn", "curvature": "kronecker"},
    "literal": {"control_hessian": "literal"},
    "clipped": {"max_grad_norm": 0.05, "curvature": "adam"},
    "line search": {"line_search": True, "lr": 2.0, "curvature": "identity"},
    "separable": {"gains": "separable", "curvature": "diagonal"},
    "tikhonov": {"tikhonov": 0.1},
    "micro-batches": {"micro_batch": 2},
    "second order": {"dynamics": "second"},
}


def network(name: str) -> nn.Sequential:
    """A convolution for all but what is for Linear layers."""
    if name in ("second order", "ekfac, full", "ekfac, value", "ekfac, none"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))
    elif name == "bases kept, ekfac":  # fewer inputs than samples: where E[x̄ x̄ᵀ] is singular the basis is arbitrary
        model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    else:
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 4), nn.Sigmoid(), nn.Linear(4, 3)
        )
    randomize(model, 0)
    return model.double()


def train(name: str, shared: Processes) -> tuple[list[Tensor], list[float]]:
    """Three steps on batches of 7 samples, which no number of processes divides."""
    model, generator = network(name), torch.Generator().manual_seed(1)
    optimizer = DDPNOpt(model, **{"lr": 0.05, "eps": 1e-2, **OPTIONS[name]}, processes=shared)
    losses = []
    for _ in range(3):
        inputs = torch.randn(7, 1, 4, 4, generator=generator, dtype=torch.float64)
        targets = torch.randint(3, (7,), generator=generator)
        losses.append(optimizer.step(shared.share(inputs), shared.share(targets)))
    return [parameter.detach() for parameter in model.parameters()], losses


def in_processes(count: int, work: Callable[[Processes], Any], folder: Path) -> list[Any]:
    """Run work in processes that talk through gloo; return what each one returned."""
    context = mp.get_context("fork")
    workers = [context.Process(target=_enter, args=(rank, count, work, folder)) for rank in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _enter(rank: int, count: int, work: Callable[[Processes], Any], folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save(work(Processes(rank, count)), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_take_the_step_of_the_whole_batch(count: int, tmp_path: Path) -> None:
    results = in_processes(count, lambda shared: {name: train(name, shared) for name in OPTIONS}, tmp_path)
    for name in OPTIONS:
        parameters, losses = train(name, Processes())
        for result in results:
            assert result[name][1] == pytest.approx(losses, rel=1e-11), name
            for ours, expected in zip(result[name][0], parameters, strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10, msg=name)
            for ours, first in zip(result[name][0], results[0][name][0]):
                assert torch.equal(ours, first)  # bit for bit: nothing drifts apart


NETWORKS = """
import os, pathlib
from torch import nn

def plain(data):
    pathlib.Path(__file__).with_name(f"pid-{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
    return nn.Sequential(nn.Linear(13, 8), nn.Tanh(), nn.Linear(8, data.classes))
def dropout(data):
    return nn.Sequential(nn.Linear(13, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, data.classes))
def normalized(data):
    return nn.Sequential(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, data.classes))
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(NETWORKS)
    return path


def advanced(options: TrainOptions, shared: Processes, saved: dict[str, Any] | None, epochs: int) -> dict[str, Any]:
    """Train some epochs, from a saved state if there is one; return the state."""
    with reproducible(torch.device("cpu"), options.seed):
        run = Training(options, shared)
        if saved is not None:
            run.restore(saved)
        for _ in range(epochs):
            assert run.advance(None, lambda: False)
        return run.state()


@pytest.mark.filterwarnings(TORCHS_OWN)
@pytest.mark.parametrize("optimizer", ["ddpnopt", "adam", "sgd"])
def test_runs_end_where_one_process_ends(optimizer: str, models: Path, tmp_path: Path) -> None:
    options = TrainOptions(data="wine", model=f"{models}:plain", optimizer=optimizer, batch_size=50, epochs=2)
    alone = advanced(options, Processes(), None, 2)
    for state in in_processes(2, lambda shared: advanced(options, shared, None, 2), tmp_path):
        for name, weight in alone["model"].items():
            torch.testing.assert_close(state["model"][name], weight, rtol=1e-4, atol=1e-5)
        for row, expected in zip(state["rows"], alone["rows"], strict=True):
            assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-4)
            assert row["test_accuracy"] == pytest.approx(expected["test_accuracy"])


@pytest.mark.filterwarnings(TORCHS_OWN)
def test_a_resumed_run_draws_as_one_that_was_not_stopped(models: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        data="wine", model=f"{models}:dropout", terminal="montecarlo", curvature="adam", batch_size=50, epochs=2
    )

    def work(shared: Processes) -> tuple[dict[str, Any], dict[str, Any]]:
        whole = advanced(options, shared, None, 2)
        return whole, advanced(options, shared, advanced(options, shared, None, 1), 1)

    (whole, resumed), (_, other) = in_processes(2, work, tmp_path)
    for name, weight in whole["model"].items():
        assert torch.equal(resumed["model"][name], weight)
        assert torch.equal(other["model"][name], weight)
    assert not torch.equal(whole["random"], whole["others"][0]["random"])  # each process draws its own masks


def test_the_loss_of_a_process_is_named(tmp_path: Path) -> None:
    def work(shared: Processes) -> None:
        if shared.rank == 1:
            while not (tmp_path / "met").exists():  # a loss while they still meet is torch's own error
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / "met").touch()
        with pytest.raises(ProcessLost, match=r"process 0 of 2 has lost another one.*--resume"):
            train("adam, full", shared)
        (tmp_path / "named").touch()
        os._exit(0)

    context = mp.get_context("fork")
    workers = [context.Process(target=_enter, args=(rank, 2, work, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, -signal.SIGKILL]
    assert (tmp_path / "named").exists()


@pytest.mark.slow
def test_torchrun_ends_when_a_worker_is_killed_and_the_run_goes_on(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["wine", "--model", f"{models}:plain", "--batch-size", "50", "--epochs", "400", "--out", str(out)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ocpkit", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True, env=environment)
    for _ in range(1200):
        time.sleep(0.1)
        if (out / "checkpoint.previous.pt").exists():
            break
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "SIGKILL" in said or "Signal 9" in said
    saved = checkpoint.load(out)
    assert saved is not None
    done = saved["epochs_done"]
    assert 0 < done < 400
    # on one process, to the next epochs, as one that was never interrupted
    options = TrainOptions(data="wine", model=f"{models}:plain", batch_size=50, epochs=done + 2, out=out)
    resumed = train_run(options, resume=True)
    uninterrupted = train_run(replace(options, out=None))
    assert resumed.rows[-1].epoch == done + 2
    assert resumed.rows[-1].test_loss == pytest.approx(uninterrupted.rows[-1].test_loss, rel=1e-3)


def test_what_processes_cannot_share_is_refused(models: Path) -> None:
    with pytest.raises(ProblemError, match="batch of 2 samples cannot be shared by 3 processes"):
        Processes(0, 3).share(torch.zeros(2, 4))
    with pytest.raises(ProblemError, match="batch normalization"):
        Training(TrainOptions(data="wine", model=f"{models}:normalized"), Processes(0, 2))
    with pytest.raises(ValueError, match="exact curvature"):
        DDPNOpt(network("ggn"), curvature="exact", processes=Processes(0, 2))


def test_every_process_makes_the_gpu_of_its_local_rank_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL gathers objects through the current GPU; without this all processes would take the first one."""
    calls: list[Any] = []
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(dist, "init_process_group", calls.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with processes("cuda") as shared:
        assert (shared.rank, shared.count) == (1, 2)
    assert calls == ["cuda:1", "nccl"]


def test_every_sample_is_in_one_share() -> None:
    batch = torch.arange(11)
    shares = [Processes(rank, 4).share(batch) for rank in range(4)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} == {2, 3}


@given(costs=st.lists(st.integers(1, 100)), count=st.integers(1, 5))
def test_work_is_divided_evenly(costs: list[int], count: int) -> None:
    """Nobody has more than an even share and one task."""
    owners = Processes(0, count).divide(costs)
    assert len(owners) == len(costs)
    for rank in range(count):
        own = [cost for cost, owner in zip(costs, owners) if owner == rank]
        assert sum(own) <= sum(costs) / count + max(costs, default=0)


def test_each_factor_is_decomposed_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps that share their bases: at the first each process decomposes all six, then the six are divided."""

    def steps(shared: Processes) -> list[int]:
        calls, done, decompose = [], [], eigenbases.decompose
        monkeypatch.setattr(eigenbases, "decompose", lambda *args: calls.append(decompose(*args)))
        optimizer = DDPNOpt(network("bases kept"), curvature="kronecker", eigenbasis_interval=2, processes=shared)
        for _ in range(2):
            optimizer.step(torch.ones(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1]))
            done.append(len(calls))
        return done

    (first, after), (other, after_other) = in_processes(2, steps, tmp_path)
    assert (first, other) == (6, 6)
    assert (after - first) + (after_other - other) == 6
    assert after > first
    assert after_other > other


def test_alone_nothing_is_communicated() -> None:
    alone = Processes()
    assert alone.begin_batch(5, torch.device("cpu")) == 5
    assert alone.average(torch.ones(2)).sum() == 2
    assert alone.gather("state") == ["state"]
    assert not alone.any(False, torch.device("cpu"))
    assert alone.bytes_exchanged == 0

"""Training runs: determinism, optimizers, and what is written."""

import csv
import json
import sys
import types
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nn.train.runs import NETWORKS, options, weights
from ocpkit.errors import ProblemError
from ocpkit_nn.data import load
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.curvature import RULES
from ocpkit_nn.training import training
from ocpkit_nn.training.checkpoint import load_model
from ocpkit_nn.training.optimizers import OPTIMIZERS
from ocpkit_nn.training.options import TAKES
from ocpkit_nn.training.train import train


def test_a_seed_fixes_the_result_and_another_one_changes_it():
    first, second, other = (train(options(seed=seed, terminal="montecarlo")) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_the_callers_random_state_and_threads_are_left_alone():
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        train(options(epochs=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_does_not_depend_on_random_numbers_drawn_by_callbacks():
    alone = train(options(model="nets.py:residual"))
    order = []

    def on_batch(step):
        order.append((step.epoch, step.epochs, step.batch, step.batches))
        return True  # the next update is measured, which must not change it either

    watched = train(options(model="nets.py:residual"), order.append, on_batch)
    assert torch.equal(weights(alone), weights(watched))
    assert order[:5] == [(1, 3, 1, 4), (1, 3, 2, 4), (1, 3, 3, 4), (1, 3, 4, 4), watched.rows[0]]


def test_steps_say_what_was_done_and_measure_what_is_asked():
    run = training.Training(options(epochs=2, schedule="cosine", lr=0.1, optimizer="sgd"))
    steps, seen = [], [torch.cat([u.detach().flatten().clone() for u in run.model.parameters()])]

    def on_batch(step):
        steps.append(step)
        seen.append(torch.cat([u.detach().flatten().clone() for u in run.model.parameters()]))
        return step.batch in (1, 4)

    for _ in range(2):
        run.advance(on_batch, lambda: False)
    moved = [float((after - before).norm()) for before, after in pairwise(seen)]
    asked = [False, *[step.batch in (1, 4) for step in steps[:-1]]]
    assert [step.update_length is not None for step in steps] == asked
    assert all(step.update_length in (None, pytest.approx(length, rel=1e-6)) for step, length in zip(steps, moved))
    assert [step.learning_rate for step in steps] == sorted((step.learning_rate for step in steps), reverse=True)
    assert steps[0].learning_rate == 0.1
    assert sum(step.samples for step in steps) == 2 * len(run.data.train_inputs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name):
    rows = train(options(optimizer=name, epochs=8)).rows
    assert rows[-1].train_loss < rows[0].train_loss
    assert [row.epoch for row in rows] == list(range(1, 9))


@pytest.mark.parametrize("curvature", RULES)
def test_every_curvature_trains_with_its_default_rate(curvature):
    rows = train(options(curvature=curvature, epochs=4)).rows
    assert rows[-1].train_loss < rows[0].train_loss


@pytest.mark.parametrize(
    ("baseline", "curvature"), [("sgd", "identity"), ("rmsprop", "diagonal"), ("adam", "adam"), ("kfac", "kronecker")]
)
def test_baselines_are_ddpnopt_without_feedback(baseline, curvature):
    common = {"weight_decay": 0.01} | ({"momentum": 0.9} if baseline == "sgd" else {})
    theirs = train(options(optimizer=baseline, **common))
    ours = train(options(optimizer="ddpnopt", curvature=curvature, feedback="none", **common))
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "terminal"),
    [
        ({}, "montecarlo"),
        ({"terminal": "empirical"}, "empirical"),
        ({"gains": "separable"}, "empirical"),
        ({"curvature": "kronecker"}, "empirical"),
    ],
)
def test_the_defaults_of_a_cnn_fit_together(changes, terminal):
    filled = options(model="cnn", **changes).resolved("mnist")
    assert filled.terminal == terminal
    assert filled.curvature == changes.get("curvature", "diagonal")
    DDPNOpt(nn.Linear(2, 2), terminal=filled.terminal, curvature=filled.curvature, gains=filled.gains)


def test_the_cosine_schedule_falls_from_lr_to_nearly_zero_over_the_whole_run(monkeypatch):
    rates = []

    class Spy:
        """An optimizer of one's own: what the table needs."""

        def __init__(self, model, loss, options):
            self.param_groups = [{"lr": options.lr}]

        def step(self, inputs, targets):
            rates.append(self.param_groups[0]["lr"])
            return 1.0

    monkeypatch.setitem(OPTIMIZERS, "spy", Spy)
    monkeypatch.setitem(TAKES, "spy", ())
    train(options(optimizer="spy", schedule="cosine", lr=2.0))
    assert rates == pytest.approx([1 + np.cos(np.pi * k / 12) for k in range(12)])
    rates.clear()
    train(options(optimizer="spy", lr=2.0))
    assert rates == [2.0] * 12


def test_an_optimizer_without_a_learning_rate_refuses_a_schedule(monkeypatch):
    monkeypatch.setitem(TAKES, "fixed", ())
    monkeypatch.setitem(OPTIMIZERS, "fixed", lambda model, loss, options: object())
    with pytest.raises(ProblemError, match="no learning rate to schedule"):
        train(options(optimizer="fixed", schedule="cosine"))


def test_metrics_are_those_of_the_saved_model():
    result = train(options(out="run"))
    data = load("data.npz")
    with torch.no_grad():
        outputs = load_model("run/model.pt")(data.test_inputs)
        train_outputs = result.model(data.train_inputs)
    metrics = json.loads(Path("run/metrics.json").read_text())
    last = metrics["rows"][-1]
    assert last["test_loss"] == pytest.approx(float(nn.functional.cross_entropy(outputs, data.test_targets)), rel=1e-5)
    assert last["train_loss"] == pytest.approx(
        float(nn.functional.cross_entropy(train_outputs, data.train_targets)), rel=1e-5
    )
    assert last["test_accuracy"] == pytest.approx(100 * float((outputs.argmax(1) == data.test_targets).double().mean()))
    assert last["test_accuracy"] == result.test_accuracy
    assert metrics["rows"] == [asdict(row) for row in result.rows]
    assert metrics["options"]["lr"] == result.options.lr
    assert torch.__version__.startswith(metrics["versions"]["torch"])  # +cpu, +cu130: which build
    assert {"data", "optimizer", "curvature", "feedback", "seed", "batch_size"} <= metrics["options"].keys()


@pytest.mark.usefixtures("pictures")
def test_the_folder_holds_the_same_numbers_as_csv_and_a_picture():
    result = train(options(out="deep/run"))
    with open("deep/run/metrics.csv", newline="") as file:
        table = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert table == [asdict(row) for row in result.rows]
    assert Path("deep/run/learning-curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(Path("deep/run").glob("*.tmp"))


@pytest.mark.parametrize("model", ["fcn", "nets.py:normalized"])
def test_a_saved_model_is_rebuilt_with_its_buffers(model):
    result = train(options(model=model, out="run"))
    inputs = torch.randn(5, 4)
    assert torch.equal(load_model("run/model.pt", run_files=True)(inputs), result.model(inputs))


def test_a_model_file_that_is_damaged_or_of_another_network_is_refused():
    train(options(model="nets.py:residual", out="run", epochs=1))
    Path("nets.py").write_text(NETWORKS.replace("nn.Linear(4, 6), Residual(6)", "nn.Linear(4, 6)"))
    with pytest.raises(ProblemError, match=r"not those of the network 'nets.py:residual'.*Missing key"):
        load_model("run/model.pt", run_files=True)
    Path("run/model.pt").write_bytes(b"PK")
    with pytest.raises(ProblemError, match=r"model\.pt cannot be loaded"):
        load_model("run/model.pt")


def test_evaluation_in_batches_is_evaluation(monkeypatch):
    whole = train(options(epochs=1)).rows[0]
    monkeypatch.setattr(training, "EVALUATION_BATCH", 7)
    parts = train(options(epochs=1)).rows[0]
    assert parts.test_loss == pytest.approx(whole.test_loss, rel=1e-6)
    assert parts.test_accuracy == whole.test_accuracy


@pytest.mark.usefixtures("pictures")
def test_without_matplotlib_there_is_no_picture_and_all_else(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(options(out="run", epochs=1))
    assert sorted(path.name for path in Path("run").iterdir()) == [
        *("checkpoint.previous.pt", "checkpoint.pt", "metrics.csv", "metrics.json", "model.pt"),
    ]


def test_tensorboard_gets_each_epoch_once(monkeypatch):
    scalars, purged = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            purged.append((Path(folder), purge_step))

        def add_scalar(self, name, value, step):
            scalars.append((name, value, step))

        def close(self):
            scalars.append("closed")

    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    rows = train(options(out="run", epochs=2)).rows
    names = ("train_loss", "test_loss", "test_accuracy")
    assert scalars == [(name, getattr(row, name), row.epoch) for row in rows for name in names] + ["closed"]
    train(options(out="run", epochs=3), resume=True)
    assert purged == [(Path("run/tensorboard"), 1), (Path("run/tensorboard"), 3)]

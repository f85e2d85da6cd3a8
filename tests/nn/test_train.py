"""Training runs: determinism, resuming bit for bit, what is written, and how a run fails."""

import csv
import json
import signal
import subprocess
import sys
import threading
import types
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ocpkit.errors import ProblemError
from ocpkit_nn import checkpoint, record, training
from ocpkit_nn.checkpoint import load_model
from ocpkit_nn.data import load
from ocpkit_nn.optim import DDPNOpt
from ocpkit_nn.optimizers import OPTIMIZERS, TAKES
from ocpkit_nn.train import TrainingDiverged, TrainingInterrupted, TrainOptions, train

torch.set_num_threads(1)

NETWORKS = """
import torch
from torch import nn

class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
    def forward(self, x):
        return x + torch.tanh(self.inner(x))

def residual(data):
    return nn.Sequential(nn.Linear(4, 6), Residual(6), nn.Linear(6, data.classes))
def dropout(data):
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, data.classes))
def normalised(data):
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, data.classes))
def two_outputs(data):
    return nn.Linear(4, 2)
def other_inputs(data):
    return nn.Linear(5, data.classes)
def a_tuple(data):
    class Pair(nn.Linear):
        def forward(self, x):
            return x, x
    return Pair(4, 3)
def fails(data):
    return 1 / 0
def fails_later(data):
    class Later(nn.Linear):
        def forward(self, x):
            if len(x) == 12:
                raise ValueError("twelve samples are too many")
            return super().forward(x)
    return nn.Sequential(Later(4, 3))
"""


def write_data(path, seed=0, samples=60):
    random = np.random.default_rng(seed)
    targets = np.arange(samples) % 3
    inputs = random.standard_normal((3, 4))[targets] * 2 + random.standard_normal((samples, 4))
    np.savez(path, x_train=inputs, y_train=targets, x_test=inputs[:21], y_test=targets[:21])


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, request):
    """Work in a folder that holds data and networks; draw pictures only where the test is about them."""
    monkeypatch.chdir(tmp_path)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("ocpkit_nn.train.draw_learning_curve", lambda folder, title, rows: None)
    write_data("data.npz")
    Path("nets.py").write_text(NETWORKS)


@pytest.fixture
def pictures():
    """Ask for pictures."""


def options(**changes):
    return TrainOptions(**{"data": "data.npz", "epochs": 3, "batch_size": 16, **changes})


def weights(result):
    return torch.cat([value.flatten().double() for value in result.model.state_dict().values()])


# ---------------------------------------------------------------- the same seed gives the same weights


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


# ---------------------------------------------------------------- optimisers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name):
    rows = train(options(optimizer=name, epochs=8)).rows
    assert rows[-1].train_loss < rows[0].train_loss
    assert [row.epoch for row in rows] == list(range(1, 9))


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
        """An optimiser of one's own: what the table needs."""

        def __init__(self, model, loss, options):
            self.param_groups = [{"lr": options.lr}]

        def step(self, inputs, targets):
            rates.append(self.param_groups[0]["lr"])
            return 1.0

    monkeypatch.setitem(OPTIMIZERS, "spy", Spy)
    train(options(optimizer="spy", schedule="cosine", lr=2.0))
    assert rates == pytest.approx([1 + np.cos(np.pi * k / 12) for k in range(12)])
    rates.clear()
    train(options(optimizer="spy", lr=2.0))
    assert rates == [2.0] * 12


def test_an_optimizer_without_a_learning_rate_refuses_a_schedule(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "fixed", lambda model, loss, options: object())
    with pytest.raises(ProblemError, match="no learning rate to schedule"):
        train(options(optimizer="fixed", schedule="cosine"))


# ---------------------------------------------------------------- what is written


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


@pytest.mark.parametrize("model", ["fcn", "nets.py:normalised"])
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


# ---------------------------------------------------------------- resuming

RESUMED = {
    "adam curvature, full feedback": {"curvature": "adam"},
    "dropout": {"model": "nets.py:dropout", "curvature": "diagonal"},
    "dropout, torch's adam": {"model": "nets.py:dropout", "optimizer": "adam"},
    "batch normalisation": {"model": "nets.py:normalised"},
    "Monte-Carlo Fisher": {"terminal": "montecarlo"},
    "residual blocks, EKFAC": {"model": "nets.py:residual", "curvature": "ekfac", "basis_every": 3},
    "KFAC": {"optimizer": "kfac"},
    "momentum and a schedule": {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine"},
}


class Killed(Exception):
    pass


def stop_at(epoch, batch, action):
    """Return a callback for batches that acts at one place."""

    def on_batch(step):
        if (step.epoch, step.batch) == (epoch, batch):
            action()

    return on_batch


def kill():
    raise Killed


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("action", [kill, lambda: signal.raise_signal(signal.SIGINT)], ids=["killed", "Ctrl-C"])
def test_a_resumed_run_ends_with_the_very_same_weights(changes, action):
    whole = train(options(**changes))
    with pytest.raises((Killed, TrainingInterrupted)):
        train(options(out="run", **changes), on_batch=stop_at(2, 3, action))
    resumed = train(options(out="run", **changes), resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert [(row.train_loss, row.test_loss) for row in resumed.rows] == [
        (row.train_loss, row.test_loss) for row in whole.rows
    ]
    assert [row.seconds for row in resumed.rows] == sorted(row.seconds for row in resumed.rows)


@pytest.mark.usefixtures("pictures")
def test_ctrl_c_loses_no_batch_and_saves_no_final_model():
    with pytest.raises(TrainingInterrupted, match="epoch 2 of 3"):
        train(options(out="run"), on_batch=stop_at(2, 3, lambda: signal.raise_signal(signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not Path("run/model.pt").exists()
    assert Path("run/learning-curve.png").exists()
    steps = []
    train(options(out="run"), on_batch=steps.append, resume=True)
    assert (steps[0].epoch, steps[0].epochs, steps[0].batch, steps[0].batches) == (2, 3, 4, 4)


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt) as caught:
        train(options(), on_batch=lambda *_: (signal.raise_signal(signal.SIGINT), signal.raise_signal(signal.SIGINT)))
    assert caught.type is KeyboardInterrupt


def test_training_works_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(train(options(epochs=1))))
    thread.start()
    thread.join()
    assert torch.equal(weights(results[0]), weights(train(options(epochs=1))))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been():
    code = (
        "import os, signal\n"
        "from ocpkit_nn.train import TrainOptions, train\n"
        "def on_batch(step):\n"
        "    if (step.epoch, step.batch) == (3, 2):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(TrainOptions(data='data.npz', epochs=4, batch_size=16, out='run'), on_batch=on_batch)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(json.loads(Path("run/metrics.json").read_text())["rows"]) == 2
    resumed = train(options(out="run", epochs=4), resume=True)
    assert torch.equal(weights(resumed), weights(train(options(epochs=4))))


def test_more_epochs_may_be_asked_for_and_fewer_not():
    train(options(out="run", epochs=2))
    longer = train(options(out="run", epochs=4), resume=True)
    assert torch.equal(weights(longer), weights(train(options(epochs=4))))
    with pytest.raises(ProblemError, match="epochs was 4, now 3"):
        train(options(out="run", epochs=3), resume=True)


def test_a_schedule_fixes_the_number_of_epochs():
    train(options(out="run", epochs=2, schedule="cosine"))
    with pytest.raises(ProblemError, match="epochs was 2, now 4"):
        train(options(out="run", epochs=4, schedule="cosine"), resume=True)


def test_resuming_a_finished_run_changes_nothing():
    first = train(options(out="run"))
    again = train(options(out="run"), resume=True)
    assert torch.equal(weights(first), weights(again))
    assert first.rows == again.rows


def test_resume_begins_where_nothing_was_saved():
    Path("run").mkdir()
    Path("run/checkpoint.pt.tmp").write_bytes(b"cut off")
    assert torch.equal(weights(train(options(out="run"), resume=True)), weights(train(options())))


def test_other_options_are_named():
    train(options(out="run", epochs=1))
    with pytest.raises(ProblemError, match=r"run with other options: lr was 0\.001, now 0\.1; seed was 0, now 3"):
        train(options(out="run", epochs=1, lr=0.1, seed=3), resume=True)


def test_other_data_under_the_same_name_are_noticed():
    train(options(out="run", epochs=1))
    write_data("data.npz", seed=1)
    with pytest.raises(ProblemError, match=r"data of data\.npz are not those the run began with"):
        train(options(out="run", epochs=2), resume=True)


def test_another_network_under_the_same_name_is_noticed():
    train(options(model="nets.py:residual", out="run", epochs=1))
    Path("nets.py").write_text(NETWORKS.replace("nn.Linear(4, 6)", "nn.Linear(4, 7)").replace("(6)", "(7)"))
    Path("nets.py").write_text(Path("nets.py").read_text().replace("nn.Linear(6, data", "nn.Linear(7, data"))
    with pytest.raises(ProblemError, match=r"not those of the network 'nets.py:residual'.*size mismatch"):
        train(options(model="nets.py:residual", out="run", epochs=2), resume=True)


def truncated(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize("damage", [truncated, empty, flipped])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(damage):
    whole = train(options(out="run"))
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        path = Path("run", name)
        path.write_bytes(damage(path.read_bytes()))
        if name == "checkpoint.pt":
            with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged"):
                resumed = train(options(out="run"), resume=True)
            assert torch.equal(weights(resumed), weights(whole))
            checkpoint.save(Path("run"), checkpoint.load(Path("run")))
            path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ProblemError, match="nothing to resume from; start again in another folder"):
        train(options(out="run"), resume=True)


def test_a_crash_while_saving_leaves_the_last_checkpoint(monkeypatch):
    def crash(path):
        if Path("run/metrics.csv").exists():
            raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", crash)
        with pytest.raises(OSError, match="no space"):
            train(options(out="run"))
    assert checkpoint.load(Path("run"))["epochs_done"] == 0
    assert torch.equal(weights(train(options(out="run"), resume=True)), weights(train(options())))


# ---------------------------------------------------------------- divergence

DIVERGING = {
    "sgd": {"optimizer": "sgd", "lr": 1e30},
    "ddpnopt": {"lr": 1e38},
    "ddpnopt, Monte-Carlo": {"lr": 1e38, "terminal": "montecarlo"},
    "kfac": {"optimizer": "kfac", "lr": 1e38},
    "one step in an epoch": {"optimizer": "sgd", "lr": 1e30, "batch_size": 60},
}


@pytest.mark.parametrize("changes", DIVERGING.values(), ids=DIVERGING)
def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(changes):
    with pytest.raises(TrainingDiverged, match=r"diverged .* epoch .*last good weights.*smaller lr \(now 1e\+3"):
        train(options(out="run", epochs=20, loss="mse", model="nets.py:residual", **changes))
    state = checkpoint.load(Path("run"))
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not Path("run/model.pt").exists()
    rows = json.loads(Path("run/metrics.json").read_text())["rows"]
    assert len(rows) == state["epochs_done"]


# ---------------------------------------------------------------- wrong input

WRONG_OPTIONS = {
    "optimizer": ({"optimizer": "ddpnop"}, "unknown optimizer 'ddpnop'; did you mean 'ddpnopt'"),
    "curvature": ({"curvature": "diagnal"}, "unknown curvature 'diagnal'; did you mean 'diagonal'"),
    "feedback": ({"feedback": "ful"}, "did you mean 'full'"),
    "terminal": ({"terminal": "fisher"}, "unknown terminal 'fisher'"),
    "loss": ({"loss": "cee"}, "unknown loss 'cee'"),
    "schedule": ({"schedule": "linear"}, "unknown schedule"),
    "no epochs": ({"epochs": 0}, "epochs must be at least 1"),
    "no batch": ({"batch_size": 0}, "batch_size must be at least 1"),
    "lr zero": ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
    "lr NaN": ({"lr": float("nan")}, "lr must be positive and finite, got nan"),
    "lr infinite": ({"lr": float("inf")}, "lr must be positive"),
    "momentum": ({"optimizer": "sgd", "momentum": 1.0}, "momentum must lie in"),
    "weight decay": ({"weight_decay": -1.0}, "weight_decay must be finite and not negative"),
    "seed": ({"seed": -1}, "seed must not be negative"),
    "option of another optimizer": (
        {"optimizer": "adam", "feedback": "full"},
        "feedback is an option of ddpnopt; adam has none",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options_are_refused_when_they_are_given(changes, message):
    with pytest.raises(ProblemError) as error:
        options(**changes)
    assert message in str(error.value)


WRONG_RUNS = {
    "no such data": ({"data": "digts"}, "did you mean 'digits'"),
    "no such network": ({"model": "fnc"}, "did you mean 'fcn'"),
    "network that needs images": ({"model": "cnn"}, "needs images"),
    "no such file": ({"model": "no.py:build"}, "no such file: no.py"),
    "no such function": ({"model": "nets.py:build"}, "no function 'build'"),
    "network that fails": ({"model": "nets.py:fails"}, "ZeroDivisionError"),
    "too few outputs": ({"model": "nets.py:two_outputs"}, "must map (B, …) to (B, 3)"),
    "other inputs": ({"model": "nets.py:other_inputs"}, "cannot take samples of shape (4,)"),
    "no tensor": ({"model": "nets.py:a_tuple"}, "gave tuple"),
    "network that fails on a batch": (
        {"model": "nets.py:fails_later", "optimizer": "sgd"},
        "epoch 1, batch 4, inputs (12, 4): ValueError: twelve samples are too many",
    ),
    "no such device": ({"device": "gpu"}, "device 'gpu' cannot be used here"),
    "rank missing": ({"terminal": "rank"}, "rank"),
    "folder is a file": ({"out": "nets.py"}, "is a file, not a folder"),
    "folder not empty": ({"out": "."}, "is not empty"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_RUNS.values(), ids=WRONG_RUNS)
def test_wrong_runs_are_refused_with_a_reason(changes, message):
    with pytest.raises(ProblemError) as error:
        train(options(**changes))
    assert message in str(error.value)


def test_wrong_folders_to_resume_from():
    with pytest.raises(ProblemError, match="give the folder"):
        train(options(), resume=True)
    with pytest.raises(ProblemError, match="holds no checkpoint"):
        train(options(out="."), resume=True)


def test_a_run_that_cannot_start_leaves_no_folder():
    with pytest.raises(ProblemError):
        train(options(model="cnn", out="run"))
    assert not Path("run").exists()


def test_every_optimizer_says_what_it_takes():
    assert TAKES.keys() == OPTIMIZERS.keys()


def test_learning_curve_of_one_epoch(tmp_path):
    assert record.draw_learning_curve(tmp_path, "title", [record.Row(1, 0.5, 0.6, 50.0, 1.0)]).stat().st_size > 1000

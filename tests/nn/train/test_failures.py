"""How a training run fails: divergence and wrong input, each with a reason."""

import json
from pathlib import Path

import pytest

from nn.train.runs import options
from ocpkit.errors import ProblemError
from ocpkit_nn.training import checkpoint, record
from ocpkit_nn.training.optimizers import OPTIMIZERS
from ocpkit_nn.training.options import TAKES
from ocpkit_nn.training.train import TrainingDiverged, train

DIVERGING = {
    "sgd": {"optimizer": "sgd", "lr": 1e30},
    "ddpnopt": {"lr": 1e38},
    "ddpnopt, Monte-Carlo": {"lr": 1e38, "terminal": "montecarlo"},
    "kfac": {"optimizer": "kfac", "lr": 1e38},
    "one step in an epoch": {"optimizer": "sgd", "lr": 1e30, "batch_size": 60},
}


@pytest.mark.filterwarnings("ignore::ocpkit_nn.layers.lost_options.TrainingWarning")  # blocks have no Kronecker factors
@pytest.mark.parametrize("changes", DIVERGING.values(), ids=DIVERGING)
def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(changes):
    with pytest.raises(TrainingDiverged, match=r"diverged .* epoch .*last good weights.*smaller lr \(now 1e\+3"):
        train(options(out="run", epochs=20, loss="mse", model="nets.py:residual", **changes))
    state = checkpoint.load(Path("run"))
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not Path("run/model.pt").exists()
    rows = json.loads(Path("run/metrics.json").read_text())["rows"]
    assert len(rows) == state["epochs_done"]


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


@pytest.mark.parametrize("loss", [0.5, 0.0])  # in single precision a loss may vanish, and a logarithmic axis with it
def test_learning_curve_of_one_epoch(tmp_path, loss):
    assert record.draw_learning_curve(tmp_path, "title", [record.Row(1, loss, loss, 50.0, 1.0)]).stat().st_size > 1000

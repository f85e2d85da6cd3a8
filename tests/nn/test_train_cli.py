"""`ocpkit train`: what it prints, its exit statuses, Ctrl-C, and its answer to wrong input."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ocpkit.cli.commands import app

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, request):
    """Work in a folder that holds data."""
    monkeypatch.chdir(tmp_path)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("ocpkit_nn.training.train.draw_learning_curve", lambda folder, title, rows: None)
    targets = np.arange(60) % 3
    inputs = np.random.default_rng(0).standard_normal((60, 4)) + 2 * np.eye(4)[targets]
    np.savez("data.npz", x_train=inputs, y_train=targets, x_test=inputs[:20], y_test=targets[:20])


@pytest.fixture
def pictures():
    """Ask for pictures."""


def train(*arguments):
    return CliRunner().invoke(app, ["train", *arguments])


def strict_json(text):
    """Parse JSON that must not hold NaN or Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


@pytest.mark.usefixtures("pictures")
def test_training_shows_epochs_and_leaves_a_folder():
    result = train("data.npz", "--epochs", "2", "--out", "run")
    assert result.exit_code == 0, result.stderr
    assert "epoch 1, train loss" in result.stderr
    assert "wrote run" in result.stderr
    assert result.stdout.startswith("test accuracy ")
    assert sorted(path.name for path in Path("run").iterdir()) == [
        *("checkpoint.previous.pt", "checkpoint.pt", "learning-curve.png"),
        *("metrics.csv", "metrics.json", "model.pt"),
    ]


def test_options_reach_the_run():
    arguments = ["--optimizer", "ddpnopt", "--curvature", "adam", "--feedback", "value", "--terminal", "montecarlo"]
    arguments += ["--loss", "mse", "--epochs", "1", "--batch-size", "9", "--lr", "0.02", "--seed", "4", "--json"]
    record = strict_json(train("data.npz", *arguments).stdout)
    expected = {"curvature": "adam", "feedback": "value", "terminal": "montecarlo", "loss": "mse", "lr": 0.02}
    assert expected.items() <= record["options"].items()
    assert (record["options"]["batch_size"], record["options"]["seed"]) == (9, 4)


def test_json_is_all_that_is_printed_and_equals_the_file():
    result = train("data.npz", "--epochs", "2", "--out", "run", "--json")
    assert result.stderr == ""
    assert strict_json(result.stdout) == strict_json(Path("run/metrics.json").read_text())
    assert [row["epoch"] for row in strict_json(result.stdout)["rows"]] == [1, 2]


def test_quiet_hides_the_epochs_only():
    result = train("data.npz", "--epochs", "1", "--quiet", "--out", "run")
    assert result.stderr.splitlines()[0].startswith("wrote run")
    assert "test accuracy" in result.stdout


def test_runs_without_a_folder_are_numbered():
    for _ in range(2):
        assert train("data.npz", "--epochs", "1").exit_code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["data-1", "data-2"]


def test_resume_goes_on_and_warns_in_one_line_of_damage():
    train("data.npz", "--epochs", "2", "--out", "run")
    Path("run/checkpoint.pt").write_bytes(b"cut off")
    result = train("data.npz", "--epochs", "3", "--out", "run", "--resume")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: run/checkpoint.pt is damaged")
    assert [line[:7] for line in result.stderr.splitlines()[1:3]] == ["epoch 2", "epoch 3"]
    assert "UserWarning" not in result.stderr


def test_divergence_is_exit_status_1_and_one_line():
    result = train("data.npz", "--optimizer", "sgd", "--loss", "mse", "--lr", "1e30", "--out", "run", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: training diverged in epoch 1")
    assert "run/checkpoint.pt holds the last good weights" in result.stderr
    assert len(result.stderr.splitlines()) == 1


WRONG = {
    "no data": ([], "Missing argument"),
    "unknown data": (["digts"], "did you mean 'digits'"),
    "data not on this machine": (["mnist"], "set OCPKIT_DATA"),
    "data of another kind": (["folder/notes.txt"], "not a kind of data that is read"),
    "damaged data": (["folder/broken.npz"], "cannot be read as .npz"),
    "unknown optimizer": (["data.npz", "--optimizer", "ddpnop"], "did you mean 'ddpnopt'"),
    "unknown curvature": (["data.npz", "--curvature", "kroneker"], "did you mean 'kronecker'"),
    "unknown loss": (["data.npz", "--loss", "cross"], "unknown loss"),
    "option of another optimizer": (["data.npz", "--optimizer", "sgd", "--feedback", "full"], "sgd has none"),
    "unknown network": (["data.npz", "--model", "fnn"], "unknown network 'fnn'; did you mean 'fcn'"),
    "network for images": (["data.npz", "--model", "cnn"], "needs images"),
    "missing network file": (["data.npz", "--model", "no.py:build"], "no such file: no.py"),
    "epochs zero": (["data.npz", "--epochs", "0"], "epochs must be at least 1"),
    "epochs no number": (["data.npz", "--epochs", "ten"], "--epochs"),
    "negative lr": (["data.npz", "--lr", "-1"], "lr must be positive"),
    "no such device": (["data.npz", "--device", "tpu9"], "device 'tpu9' cannot be used here"),
    "folder not empty": (["data.npz", "--out", "folder"], "folder is not empty"),
    "folder is a file": (["data.npz", "--out", "data.npz"], "is a file, not a folder"),
    "resume without a folder": (["data.npz", "--resume"], "--resume needs --out"),
    "resume without a checkpoint": (["data.npz", "--resume", "--out", "folder"], "holds no checkpoint"),
    "resume with other options": (
        ["data.npz", "--resume", "--out", "run", "--epochs", "1", "--lr", "0.5"],
        "lr was 0.001, now 0.5",
    ),
    "unknown option": (["data.npz", "--optimizr", "sgd"], "--optimizr"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_ends_in_one_clear_message_and_status_2(arguments, message, monkeypatch):
    monkeypatch.delenv("OCPKIT_DATA", raising=False)
    Path("folder").mkdir()
    Path("folder/notes.txt").write_text("hello")
    Path("folder/broken.npz").write_text("hello")
    if "run" in arguments:
        train("data.npz", "--epochs", "1", "--out", "run")
    result = train(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("package", ["torch", "sklearn"])
def test_missing_packages_are_told_with_the_way_out(package, monkeypatch):
    for name in [name for name in sys.modules if package == "sklearn" and name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = train("wine")
    assert (result.exit_code, result.stdout) == (2, "")
    assert package in result.stderr
    assert "pip install 'ocpkit[nn]'" in result.stderr
    assert not Path("runs").exists()


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on():
    script = shutil.which("ocpkit", path=str(Path(sys.executable).parent))
    command = [script, "train", "data.npz", "--epochs", "100000", "--out", "a run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, deadline = Path("a run/metrics.csv"), time.monotonic() + 300
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, output) == (130, "")
    *_, message, advice = errors.splitlines()
    assert message.startswith("interrupted in epoch ")
    epochs = len(json.loads(Path("a run/metrics.json").read_text())["rows"])
    arguments = shlex.split(advice)[2:]
    assert shlex.split(advice)[:2] == ["ocpkit", "train"]
    arguments[arguments.index("100000")] = str(epochs + 1)
    result = train(*arguments)
    assert result.exit_code == 0, result.stderr
    assert [line.split(",")[0] for line in result.stderr.splitlines()[:-1]] == [f"epoch {epochs + 1}"]

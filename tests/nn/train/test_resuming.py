"""Resuming a training run bit for bit, whatever ended it."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from nn.train.runs import NETWORKS, options, weights, write_data
from ocpkit.errors import ProblemError
from ocpkit_nn.training import checkpoint
from ocpkit_nn.training.train import TrainingInterrupted, train

RESUMED = {
    "adam curvature, full feedback": {"curvature": "adam"},
    "dropout": {"model": "nets.py:dropout", "curvature": "diagonal"},
    "dropout, torch's adam": {"model": "nets.py:dropout", "optimizer": "adam"},
    "batch normalization": {"model": "nets.py:normalized"},
    "Monte-Carlo Fisher": {"terminal": "montecarlo"},
    "residual blocks, EKFAC": {"model": "nets.py:residual", "curvature": "ekfac", "eigenbasis_interval": 3},
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ocpkit_nn.layers.lost_options.TrainingWarning")  # blocks have no Kronecker factors
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


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been():
    code = (
        "import os, signal\n"
        "from ocpkit_nn.training.train import TrainOptions, train\n"
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

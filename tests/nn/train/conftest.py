"""Training runs work in a folder of their own."""

from pathlib import Path

import pytest
import torch

from nn.train.runs import NETWORKS, write_data

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, request):
    """Work in a folder that holds data and networks; draw pictures only where the test is about them."""
    monkeypatch.chdir(tmp_path)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("ocpkit_nn.training.train.draw_learning_curve", lambda folder, title, rows: None)
    write_data("data.npz")
    Path("nets.py").write_text(NETWORKS)


@pytest.fixture
def pictures():
    """Ask for pictures."""

"""Small training runs: networks that a user's file holds, data, and options."""

import numpy as np
import torch

from ocpkit_nn.training.train import TrainOptions

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
def normalized(data):
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


def options(**changes):
    return TrainOptions(**{"data": "data.npz", "epochs": 3, "batch_size": 16, **changes})


def weights(result):
    return torch.cat([value.flatten().double() for value in result.model.state_dict().values()])

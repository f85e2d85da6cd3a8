# %% [markdown]
"""Train a network of one's own, with a residual block, by DDPNOpt on scikit-learn's digits."""

# %%
import os

import torch
from torch import nn

from ocpkit_nn import DDPNOpt
from ocpkit_nn.data import batches, load

# %% [markdown]
# ## A module of one's own


# %%
class Residual(nn.Module):
    """x + tanh(W x + b): any module can be a stage; its derivatives come from `torch.func`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.inner(x))


# %% [markdown]
# ## Network and optimizer
# `DDPNOpt` takes the batch, since it needs what happens in each layer.

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # more threads only slow such small products down
data = load("digits").flatten()
model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), Residual(24), nn.Linear(24, data.classes))
optimizer = DDPNOpt(model, lr=1e-3, curvature="diagonal", feedback="full")
order = torch.Generator().manual_seed(0)

# %% [markdown]
# ## The loop

# %%
for epoch in range(2 if os.environ.get("OCPKIT_QUICK") else 10):
    for inputs, targets in batches(data.train_inputs, data.train_targets, 16, order):
        loss = optimizer.step(inputs, targets)
    right = model(data.test_inputs).argmax(1) == data.test_targets
    print(f"epoch {epoch + 1}: loss of the last batch {loss:.3f}, test accuracy {100 * right.double().mean():.1f} %")

#!/usr/bin/env bash
# torch 2.13.0: batch normalization in training mode writes its running statistics in place without raising their
# version counter, by which autograd finds out that a tensor it saved was overwritten. A gradient through an earlier
# call in evaluation mode is then silently wrong. (pytorch/pytorch#13402 describes it; InstanceNorm raises the counter.)
# Expected: backward raises "modified by an inplace operation", as after running_var.mul_(...), or the right gradient.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import sys

import torch
from torch import nn

torch.manual_seed(0)
print(f"torch {torch.__version__}")
raised, images = {}, 10 * torch.randn(4, 3, 5, 5)
for norm in (nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True)):
    before, version = norm.running_mean.clone(), norm.running_mean._version
    norm(images)
    assert not torch.equal(norm.running_mean, before)
    raised[type(norm).__name__] = norm.running_mean._version - version
mean = torch.zeros(3)
nn.functional.batch_norm(images, mean, torch.ones(3), training=True)
raised["functional.batch_norm"] = mean._version
print(f"  running_mean changes; expected: its _version too; seen, raised by: {raised}")

norm, x = nn.BatchNorm1d(1), torch.ones(4, 1, requires_grad=True)
y = norm.eval()(x).sum()  # running_var is 1: dy/dx = 1 / sqrt(1 + eps)
norm.train()(torch.tensor([[-30.0], [30.0]]))  # another batch, whose result is not used
y.backward()
print(f"  expected: a gradient of {(1 + norm.eps) ** -0.5:.4f}, or an error; seen: {x.grad[0, 0]:.4f}")
known = {"BatchNorm2d": 0, "InstanceNorm2d": 1, "functional.batch_norm": 0}
if raised != known or abs(x.grad[0, 0] - 1) < 0.5:
    sys.exit("the behaviour has changed")
EOF

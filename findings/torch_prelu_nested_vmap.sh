#!/usr/bin/env bash
# torch 2.13.0: gradients of torch.nn.functional.prelu inside two nested torch.func.vmap (over inputs and over slopes)
# are wrong where both have the same length; the only sign is a UserWarning about a resized output. With lengths that
# differ, the same call is an error about sizes. The same function written with torch.where is right.
# Expected: the gradients that a loop over inputs and slopes finds.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import sys

import torch
from torch.func import grad, vmap

slopes = torch.tensor([[0.1], [0.2], [0.3]])
inputs = torch.tensor([[-1.0, 2.0, -3.0], [4.0, -5.0, 6.0], [-7.0, -8.0, 9.0]])


def prelu(slope: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.prelu(x, slope).sum()


def by_where(slope: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, slope * x).sum()


def nested(function) -> torch.Tensor:
    """Derivative by the slope, of each input (rows) at each slope (columns)."""
    return vmap(lambda x: vmap(lambda slope: grad(function)(slope, x))(slopes))(inputs)[..., 0]


expected = torch.stack([torch.stack([grad(prelu)(slope, x) for slope in slopes]) for x in inputs])[..., 0]
assert torch.equal(nested(by_where), expected)
seen = nested(prelu)
print(f"torch {torch.__version__}\n  expected: {expected.tolist()}\n  seen:     {seen.tolist()}")
if torch.allclose(seen, expected):
    sys.exit("the behaviour has changed")
EOF

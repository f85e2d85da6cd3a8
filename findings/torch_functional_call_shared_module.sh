#!/usr/bin/env bash
# torch 2.13.0: torch.func.functional_call on a network in which one module stands at two places, with the names that
# named_parameters() gives, leaves the network changed: the module's Parameter is gone, the tensor of the call is in
# its place, and an optimizer that was made before trains a Parameter that no forward pass reads any more.
# Expected: the parameters are replaced for the time of the call, and put back.
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

print(f"torch {torch.__version__}")
back = {}
for kind in ("once", "twice"):
    layer = nn.Linear(2, 2, bias=False)
    network = nn.Sequential(layer, nn.Tanh(), layer) if kind == "twice" else nn.Sequential(layer, nn.Tanh())
    parameter = layer.weight
    zeros = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    torch.func.functional_call(network, zeros, torch.ones(1, 2))
    back[kind] = layer.weight is parameter
    print(f"  the layer stands {kind} in the network; names: {list(zeros)}")
    print("    expected: the layer has its Parameter back")
    print(f"    seen:     {type(layer.weight).__name__}, weights {layer.weight.tolist()}")
if back != {"once": True, "twice": False}:
    sys.exit("the behaviour has changed")
EOF

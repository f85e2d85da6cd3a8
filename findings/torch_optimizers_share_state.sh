#!/usr/bin/env bash
# torch 2.13.0: b.load_state_dict(a.state_dict()) for two live Adam optimizers leaves them with the same tensors of
# state, the step counter included, so that a step of one moves the other's moments. Module.load_state_dict copies.
# (pytorch/pytorch#196083 describes it. Saving to a file between the two, or copy.deepcopy, avoids it.)
# Expected: each optimizer owns its state after loading.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import sys

import torch

weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
a, b = (torch.optim.Adam([weight]) for weight in weights)
weights[0].grad = torch.ones(2)
a.step()
b.load_state_dict(a.state_dict())
state, loaded = a.state[weights[0]], b.state[weights[1]]
shared = [key for key in loaded if loaded[key].data_ptr() == state[key].data_ptr()]
before = {key: value.tolist() for key, value in state.items()}
weights[1].grad = -torch.ones(2)
b.step()
after = {key: value.tolist() for key, value in state.items()}
print(f"torch {torch.__version__}: a took one step, b loads a's state and takes one")
print(f"  expected: no shared tensors, a's state as before: {before}")
print(f"  seen:     shared {shared}, a's state: {after}")
if shared != ["step", "exp_avg", "exp_avg_sq"] or after["step"] != 2 or after["exp_avg"] == before["exp_avg"]:
    sys.exit("the behaviour has changed")
EOF

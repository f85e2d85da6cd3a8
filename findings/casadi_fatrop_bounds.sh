#!/usr/bin/env bash
# CasADi 3.8.2: nlpsol's plugin fatrop widens each bound b by 1e-8 |b|, however tight its tolerance, and reports success
# at a point outside: x <= 250 comes back as 250.0000025. IPOPT does the same by default, documents it, and obeys
# bound_relax_factor; the plugin fatrop names no such option and refuses it, so that only the caller can clip.
# Expected: a point within its bounds (they are kept at any x inside), or an option as IPOPT's.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check casadi==3.8.2 numpy==2.4.6
venv/bin/python - <<'EOF'
import sys

import casadi as ca
import numpy as np

BOUND, inf = 250.0, np.inf
x0, u0, x1 = ca.MX.sym("x0"), ca.MX.sym("u0"), ca.MX.sym("x1")
program = {"x": ca.vertcat(x0, u0, x1), "f": -x1, "g": x1 - x0 - u0}  # as far as the bound on x1 allows


def excess(plugin: str, **options: float) -> float:
    """Amount by which x1 exceeds its bound."""
    quiet = {"ipopt": {"sb": "yes"}, "fatrop": {}}[plugin]
    stages = {"structure_detection": "auto", "equality": [True]} if plugin == "fatrop" else {}
    inner = {"print_level": 0, "tol": 1e-12, **quiet, **options}
    solver = ca.nlpsol("solver", plugin, program, {"print_time": False, plugin: inner, **stages})
    result = solver(x0=0, lbx=[0, -inf, -BOUND], ubx=[0, inf, BOUND], lbg=0, ubg=0)
    assert solver.stats()["success"]
    return float(result["x"][2]) - BOUND


try:
    relaxed = excess("fatrop", bound_relax_factor=0.0)
except RuntimeError as error:
    relaxed = str(error).splitlines()[-1].rpartition(": ")[2].strip()
default, ipopt = excess("fatrop"), excess("ipopt", bound_relax_factor=0.0)
print(f"casadi {ca.__version__}: x1 - 250 at the solution")
print(f"  expected: <= 0, as ipopt with bound_relax_factor=0: {ipopt:.2e}")
print(f"  seen:     fatrop {default:.2e}, and with bound_relax_factor=0: {relaxed!r} refused")
if ipopt > 0 or not 2e-6 < default < 3e-6 or isinstance(relaxed, float):
    sys.exit("the behaviour has changed")
EOF

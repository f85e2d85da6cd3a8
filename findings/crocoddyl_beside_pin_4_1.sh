#!/usr/bin/env bash
# Crocoddyl 3.2.1 and Pinocchio 4.1.0 install together, `pip check` has no complaint, and the import succeeds; but the
# forward dynamics that Crocoddyl computes are wrong without a word. pip takes this pair today for `crocoddyl==3.2.1`
# alone. Beside Pinocchio 4.0.0 the same script is right.
# Expected: xout of DifferentialActionModelFreeFwdDynamics equals pinocchio.aba, or the pair is refused.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > link.py <<'EOF'
import sys
from importlib.metadata import version

import crocoddyl
import numpy as np
import pinocchio

mass, arm, inertia = 1.0, 0.5, 0.01  # kg, m, kg m^2: a link that hangs from a hinge
model = pinocchio.Model()
hinge = model.addJoint(0, pinocchio.JointModelRY(), pinocchio.SE3.Identity(), "hinge")
body = pinocchio.Inertia(mass, np.array([0.0, 0.0, -arm]), inertia * np.eye(3))
model.appendBodyToJoint(hinge, body, pinocchio.SE3.Identity())

state = crocoddyl.StateMultibody(model)
forward = crocoddyl.DifferentialActionModelFreeFwdDynamics(
    state, crocoddyl.ActuationModelFull(state), crocoddyl.CostModelSum(state)
)
data = forward.createData()
q, v, torque = np.array([0.5]), np.array([0.3]), np.array([0.2])
forward.calc(data, np.concatenate([q, v]), torque)

by_hand = (torque[0] - mass * 9.81 * arm * np.sin(q[0])) / (inertia + mass * arm**2)
aba = pinocchio.aba(model, model.createData(), q, v, torque)[0]
print(f"crocoddyl {version('crocoddyl')} beside pin {version('pin')}")
print(f"  expected: {by_hand:.6f} rad/s^2 (by hand), pinocchio.aba {aba:.6f}")
print(f"  seen:     {data.xout[0]:.6f}")
agrees = abs(data.xout[0] - aba) < 1e-9
if abs(aba - by_hand) > 1e-9 or agrees != (sys.argv[1] == "right"):
    sys.exit("the behaviour has changed")
EOF
for pair in 4.0.0:right 4.1.0:wrong; do
    "${PYTHON:-python3}" -m venv "venv-${pair%:*}"
    "venv-${pair%:*}/bin/pip" install --quiet --disable-pip-version-check crocoddyl==3.2.1 "pin==${pair%:*}" numpy==2.4.6
    "venv-${pair%:*}/bin/pip" check
    "venv-${pair%:*}/bin/python" link.py "${pair#*:}"
done

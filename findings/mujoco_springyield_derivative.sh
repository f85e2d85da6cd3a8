#!/usr/bin/env bash
# MuJoCo 4.0.0: mjd_transitionFD returns wrong rows of positions, and no error, for any model with a joint that has
# `springyield`, even while its spring has not yielded (`data.plastic` stays 0). Such a joint adds an entry to
# mjSTATE_PHYSICS (mjSTATE_PLASTIC) beside qpos, qvel and act, which A, of size 2 nv + na, has no place for.
# Expected: the differences of mj_step from a state restored by mj_setState, or an error that refuses the model.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mujoco==4.0.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import sys

import mujoco
import numpy as np

model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody><body>
    <joint type="slide" axis="1 0 0" stiffness="100" springyield="0.5"/><geom size="0.1" mass="1"/>
</body></worldbody></mujoco>""")
data, eps, whole = mujoco.MjData(model), 1e-6, mujoco.mjtState.mjSTATE_INTEGRATION
data.qpos[0] = 0.1  # m, less than the 0.5 at which the spring yields
start = np.zeros(mujoco.mj_stateSize(model, whole))
mujoco.mj_getState(model, data, start, whole)


def step(change_q: float, change_v: float) -> np.ndarray:
    mujoco.mj_setState(model, data, start, whole)
    data.qpos[0] += change_q
    data.qvel[0] += change_v
    mujoco.mj_step(model, data)
    assert data.plastic[0] == 0.0  # it has not yielded
    return np.array([data.qpos[0], data.qvel[0]])


pairs = [(step(eps, 0), step(-eps, 0)), (step(0, eps), step(0, -eps))]
expected, seen = np.column_stack([(up - down) / (2 * eps) for up, down in pairs]), np.zeros((2, 2))
mujoco.mj_setState(model, data, start, whole)
mujoco.mjd_transitionFD(model, data, eps, True, seen, None, None, None)
print(f"mujoco {mujoco.__version__}\n  expected: {expected.round(6).tolist()}\n  seen:     {seen.round(6).tolist()}")
if np.allclose(seen, expected, atol=1e-4) or abs(seen[0, 0]) < 1e4:
    sys.exit("the behaviour has changed")
EOF

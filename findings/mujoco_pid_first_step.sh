#!/usr/bin/env bash
# MuJoCo 4.0.0: the plugin mujoco.pid that comes with the wheel limits the rate of the control (`slewmax`) only where
# data.time > 0. Two steps from equal qpos, qvel, act and ctrl differ by the clock alone: at time 0 the limit is
# skipped, so that a step is no function of the state that a planner or a finite difference restores.
# Expected: the same step from the same state and control in a model in which nothing depends on time.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mujoco==4.0.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import sys

import mujoco

model = mujoco.MjModel.from_xml_string("""<mujoco>
    <extension><plugin plugin="mujoco.pid"/></extension>
    <worldbody><body><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1" mass="1"/></body></worldbody>
    <actuator><plugin joint="slide" plugin="mujoco.pid" actdim="2">
        <config key="kp" value="4"/><config key="ki" value="2"/><config key="slewmax" value="3"/>
    </plugin></actuator>
</mujoco>""")
velocity = {}
print(f"mujoco {mujoco.__version__}: one step of {model.opt.timestep} s from rest, control 1, slewmax 3 per second")
for time in (0.0, 1.0, 2.0):
    data = mujoco.MjData(model)  # qpos = qvel = act = 0
    data.time, data.ctrl[0] = time, 1.0
    mujoco.mj_step(model, data)
    velocity[time] = data.qvel[0]
    print(f"  seen at time {time}: qvel {data.qvel[0]:.3e} m/s, act {data.act.tolist()}")
print("  expected: the same at each time")
if velocity[1.0] != velocity[2.0] or velocity[0.0] < 100 * velocity[1.0]:
    sys.exit("the behaviour has changed")
EOF

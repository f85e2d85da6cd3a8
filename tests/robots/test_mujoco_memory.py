"""Is a step of a MuJoCo model a function of its state and its controls? If not, the model is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ocpkit.autodiff.differences import central_jacobian
from ocpkit.errors import UnsupportedProblem

mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'ocpkit[robots]'")

from ocpkit.robots import from_mujoco  # noqa: E402

Array = Any
NONE = np.zeros(0)
MOTOR = '<motor name="push" joint="j"/>'
PID = '<config key="kp" value="4"/><config key="ki" value="2"/><config key="slewmax" value="3"/>'
SPRING = '<tendon><fixed name="t" stiffness="50" {}><joint joint="j" coef="1"/></fixed></tendon>'


def sliding(joint: str = "", actuator: str = MOTOR, option: str = "", more: str = "") -> str:
    """A mass of 1 kg on a slide with an actuator."""
    return f"""<mujoco>{option}<worldbody><body><joint name="j" type="slide" axis="1 0 0" {joint}/>
        <geom size="0.1" mass="1"/></body></worldbody><actuator>{actuator}</actuator>{more}</mujoco>"""


def option(integrator: str = "Euler", **flags: str) -> str:
    written = " ".join(f'{name}="{value}"' for name, value in flags.items())
    return f'<option integrator="{integrator}" gravity="0 0 0"><flag {written}/></option>'


FUNCTIONS = {
    "a motor": sliding(),
    "a spring": sliding('stiffness="100" damping="0.3"'),
    "a tendon": sliding(more=SPRING.format("")),
    "Runge-Kutta": sliding('stiffness="30" damping="0.3"', option=option("RK4")),
    "implicit": sliding('damping="0.3"', option=option("implicit")),
    "an activation": sliding(actuator='<general joint="j" dyntype="filterexact" dynprm="0.1"/>'),
    "an activation by Runge-Kutta": sliding(
        actuator='<general joint="j" dyntype="filter" dynprm="0.1"/>', option=option("RK4")
    ),
    "a plugin with activations": sliding(
        actuator=f'<plugin joint="j" plugin="mujoco.pid" actdim="2">{PID}</plugin>',
        more='<extension><plugin plugin="mujoco.pid"/></extension>',
    ),
    "a recorded control": sliding(actuator='<motor joint="j" nsample="5"/>'),
    "a slow sensor": sliding(more='<sensor><jointpos joint="j" delay="0.01" nsample="5"/></sensor>'),
}
WITH_MEMORY = {
    "joint 'j' yields": sliding('stiffness="100" springyield="0.5"'),
    "tendon 't' yields": sliding(more=SPRING.format('springyield="0.2"')),
    "actuator 'push' has a delay": sliding(actuator='<motor name="push" joint="j" delay="0.01" nsample="5"/>'),
    "actuator 0 has a delay": sliding(actuator='<motor joint="j" delay="0.01" nsample="5"/>'),
    "actuator 'push' is computed": sliding(actuator='<general name="push" joint="j" dyntype="user" actdim="1"/>'),
    "actuator 0 is computed": sliding(actuator='<general joint="j" gaintype="user"/>'),
    "the flag sleep": sliding(option=option(sleep="enable")),
    "the flag ipc": sliding(option=option("discrete", ipc="enable")),
}


def read(text: str) -> Any:
    """Compile a model, where this version of MuJoCo has what it asks for."""
    try:
        return mujoco.MjModel.from_xml_string(text)
    except ValueError as error:
        if "unrecognized attribute" in str(error) or "invalid keyword" in str(error):
            pytest.skip(f"MuJoCo {mujoco.__version__} has no such feature")
        raise


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("text", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_step_depends_on_nothing_but_its_arguments(text: str, steps: int) -> None:
    model = read(text)
    dynamics, n = from_mujoco(model, steps=steps), from_mujoco(model).state_size
    z = np.random.default_rng(0).uniform(-0.5, 0.5, n + 1)
    first = dynamics.step(z[:n], z[n:], NONE)
    for far in (z + 1, z - 2):
        dynamics.step(far[:n], far[n:], NONE)
        dynamics.jacobians(far[:n], far[n:], NONE)
        dynamics.place(far[:n]).xfrc_applied[:] = 100.0
    np.testing.assert_array_equal(dynamics.step(z[:n], z[n:], NONE), first)
    np.testing.assert_array_equal(from_mujoco(model, steps=steps).step(z[:n], z[n:], NONE), first)
    measured = central_jacobian(lambda z: dynamics.step(z[:n], z[n:], NONE), z)
    np.testing.assert_allclose(np.hstack(dynamics.jacobians(z[:n], z[n:], NONE)), measured, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("owner", "text"), WITH_MEMORY.items(), ids=WITH_MEMORY)
def test_a_model_that_remembers_is_refused_by_name(owner: str, text: str) -> None:
    with pytest.raises(UnsupportedProblem, match=owner):
        from_mujoco(read(text))


@pytest.mark.parametrize("name", ["control", "passive", "contactfilter"])
def test_a_callback_is_refused_by_name(name: str) -> None:
    model, install = read(sliding()), getattr(mujoco, f"set_mjcb_{name}")
    install(lambda *arguments: 0)
    try:
        with pytest.raises(UnsupportedProblem, match=f"the callback mjcb_{name}"):
            from_mujoco(model)
    finally:
        install(None)


@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
def test_a_control_at_the_end_of_its_range_has_the_slope_inside(integrator: str) -> None:
    """MuJoCo clips what is beyond, so that a central difference would be half the slope."""
    model = read(sliding(actuator='<motor joint="j" ctrlrange="-1 1"/>', option=option(integrator)))
    dynamics = from_mujoco(model)
    slopes = {u: dynamics.jacobians(np.zeros(2), np.array([u]), NONE)[1][1, 0] for u in (-2.0, -1.0, 0.0, 1.0)}
    assert slopes == pytest.approx({-2.0: 0.0, -1.0: 0.002, 0.0: 0.002, 1.0: 0.002}, abs=1e-8)


def test_what_mujoco_itself_refuses_is_no_error_of_mujocos() -> None:
    cloth = '<elasticity young="1e4" thickness="0.01" elastic2d="both"/>'
    model = read(
        f"""<mujoco>{option("discrete")}<worldbody><flexcomp type="grid" dim="2" count="2 2 1" spacing="0.1 0.1 0.1"
        radius="0.01" mass="1" name="f">{cloth}</flexcomp></worldbody></mujoco>"""
    )
    assert from_mujoco(model).state_size == 24
    model.opt.solver = mujoco.mjtSolver.mjSOL_PGS
    with pytest.raises(UnsupportedProblem):
        from_mujoco(model)

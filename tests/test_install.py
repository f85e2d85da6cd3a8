"""What pip makes of the extras: they can be installed, and packages that only work in pairs come in pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAIR = {"crocoddyl": "3.2.1", "pin": "4.0.0"}


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    quick = ["--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "10"]
    return subprocess.run([sys.executable, "-m", "pip", *arguments, *quick], capture_output=True, text=True)


@pytest.fixture(scope="module")
def _index() -> None:
    if pip("index", "versions", "pin").returncode:
        pytest.skip("pip is missing, or reaches no index of packages")


def chosen(extra: str, folder: Path, *options: str) -> dict[str, str]:
    """Versions that pip would install for an extra, by name."""
    report = folder / "report.json"
    dry = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    outcome = pip("install", *dry, *options, f"{ROOT}[{extra}]")
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    packages = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {package["name"].lower(): package["version"] for package in packages}


@pytest.mark.slow
@pytest.mark.usefixtures("_index")
def test_extras_can_be_installed_under_the_constraints(tmp_path: Path) -> None:
    """Together, so that each can be alone; those with torch are installed by continuous integration itself."""
    versions = chosen("bench,plot,robots,docs", tmp_path, "-c", str(ROOT / "constraints.txt"))
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: version for name, version in versions.items() if version != pinned.get(name, version)} == {}
    assert PAIR.items() <= versions.items()


@pytest.mark.slow
@pytest.mark.usefixtures("_index")
def test_crocoddyl_comes_with_the_pinocchio_it_was_built_for(tmp_path: Path) -> None:
    """Without the constraints, beside the robots' descriptions."""
    assert PAIR.items() <= chosen("bench,robots", tmp_path).items()


def test_a_link_falls_in_crocoddyl_as_in_pinocchio_and_on_paper() -> None:
    """A point of 1 kg, 0.5 m below its hinge, 1.2 rad off: q̈ = −g/l sin q."""
    crocoddyl = pytest.importorskip("crocoddyl", reason="crocoddyl is not installed: pip install 'ocpkit[bench]'")
    pinocchio = pytest.importorskip("pinocchio", reason="pin is not installed: pip install 'ocpkit[bench]'")
    model, still = pinocchio.Model(), pinocchio.SE3.Identity()
    hinge = model.addJoint(0, pinocchio.JointModelRY(), still, "hinge")
    model.appendBodyToJoint(hinge, pinocchio.Inertia(1.0, np.array([0, 0, -0.5]), np.zeros((3, 3))), still)
    state = crocoddyl.StateMultibody(model)
    action = crocoddyl.DifferentialActionModelFreeFwdDynamics(
        state, crocoddyl.ActuationModelFull(state), crocoddyl.CostModelSum(state, 1)
    )
    data = action.createData()
    action.calc(data, np.array([1.2, 0.0]), np.zeros(1))
    np.testing.assert_allclose(data.xout, [-9.81 / 0.5 * np.sin(1.2)], rtol=1e-12)

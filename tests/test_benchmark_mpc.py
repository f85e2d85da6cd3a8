"""The race of controllers: both sides solve the same problem; nothing here looks at a speed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("do_mpc", reason="the other controller is installed with the extra 'bench'")

from benchmarks import mpc
from ocpkit import IPOPT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", [mpc.pendulum, mpc.cartpole])
def test_do_mpc_is_given_our_problem(build) -> None:
    problem = build()
    control = mpc.do_mpc_controller(problem).make_step(problem.x0)[:, 0]
    np.testing.assert_allclose(control, IPOPT().solve(problem).controls[0], atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_race_gives_a_row() -> None:
    row = mpc.race(mpc.CASES[2], 3, rounds=1)
    assert row["usable"] == "4/4"
    assert row["ratio"] == row["least"] == pytest.approx(row["do-mpc"] / row["ocpkit"])
    assert row["apart"] < 1e-3

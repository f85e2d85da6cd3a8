"""One adapter per file; `ALL` is the order of the tables, ocpkit's fastest engine first."""

from __future__ import annotations

from benchmarks.control.contestant import System
from benchmarks.control.systems import (
    acados_sqp,
    casadi_nlp,
    cddp,
    crocoddyl_cpp,
    crocoddyl_python,
    ocpkit_constrained,
    ocpkit_ddp,
    scipy_minimize,
)

ALL: tuple[System, ...] = (
    *ocpkit_ddp.SYSTEMS,
    *ocpkit_constrained.SYSTEMS,
    *crocoddyl_cpp.SYSTEMS,
    *crocoddyl_python.SYSTEMS,
    *casadi_nlp.SYSTEMS,
    *acados_sqp.SYSTEMS,
    *cddp.SYSTEMS,
    *scipy_minimize.SYSTEMS,
)

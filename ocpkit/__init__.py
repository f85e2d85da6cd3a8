"""Optimal control: declare a problem once, solve it by DDP, and train networks with the same recursion.

Everything in ``__all__`` is loaded when it is first used, so that the import costs little more than CasADi's.
"""

from typing import TYPE_CHECKING

from ocpkit import math
from ocpkit.lazy import lazily

if TYPE_CHECKING:
    from ocpkit.batch import BatchSolution as BatchSolution
    from ocpkit.batch import solve_batch as solve_batch
    from ocpkit.check import DerivativeReport, check_derivatives
    from ocpkit.closed_loop import ClosedLoop, simulate
    from ocpkit.errors import ProblemError, UnsupportedProblem
    from ocpkit.estimator import KalmanFilter
    from ocpkit.free_parameters import chosen_parameters, with_free_parameters
    from ocpkit.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost, LeastSquares
    from ocpkit.integrate import discretize, euler, implicit_trapezoid, rk4
    from ocpkit.layer import torch_layer as torch_layer
    from ocpkit.mpc import MPC, Cause, Command, Health, shifted
    from ocpkit.noise import sample, without_noise
    from ocpkit.plan_check import Violation
    from ocpkit.problem import Constraint, Cost, Dynamics, Problem, Stage, TerminalCost
    from ocpkit.sensitivity import Sensitivity
    from ocpkit.solution import Iteration, Solution, Status, WarmStart
    from ocpkit.solvers import (
        DDP,
        EMSA,
        FDDP,
        ILQG,
        ILQR,
        IPOPT,
        MSA,
        SQP,
        AugmentedLagrangian,
        Fatrop,
        GradientDescent,
        InteriorPoint,
    )

_HOMES = {
    "batch": ("BatchSolution", "solve_batch"),
    "check": ("DerivativeReport", "check_derivatives"),
    "closed_loop": ("ClosedLoop", "simulate"),
    "estimator": ("KalmanFilter",),
    "errors": ("ProblemError", "UnsupportedProblem"),
    "free_parameters": ("chosen_parameters", "with_free_parameters"),
    "functions": ("FunctionCost", "FunctionDynamics", "FunctionTerminalCost", "LeastSquares"),
    "integrate": ("discretize", "euler", "implicit_trapezoid", "rk4"),
    "layer": ("torch_layer",),
    "mpc": ("MPC", "Cause", "Command", "Health", "shifted"),
    "noise": ("sample", "without_noise"),
    "plan_check": ("Violation",),
    "problem": ("Constraint", "Cost", "Dynamics", "Problem", "Stage", "TerminalCost"),
    "sensitivity": ("Sensitivity",),
    "solution": ("Iteration", "Solution", "Status", "WarmStart"),
    "solvers": (
        *("DDP", "EMSA", "FDDP", "ILQG", "ILQR", "IPOPT", "MSA", "SQP"),
        *("AugmentedLagrangian", "Fatrop", "GradientDescent", "InteriorPoint"),
    ),
}

__all__ = [  # `torch_layer` and `solve_batch` are left out, since they need torch
    "DDP",
    "EMSA",
    "FDDP",
    "ILQG",
    "ILQR",
    "IPOPT",
    "MPC",
    "MSA",
    "SQP",
    "AugmentedLagrangian",
    "Cause",
    "ClosedLoop",
    "Command",
    "Constraint",
    "Cost",
    "DerivativeReport",
    "Dynamics",
    "Fatrop",
    "FunctionCost",
    "FunctionDynamics",
    "FunctionTerminalCost",
    "GradientDescent",
    "Health",
    "InteriorPoint",
    "Iteration",
    "KalmanFilter",
    "LeastSquares",
    "Problem",
    "ProblemError",
    "Sensitivity",
    "Solution",
    "Stage",
    "Status",
    "TerminalCost",
    "UnsupportedProblem",
    "Violation",
    "WarmStart",
    "check_derivatives",
    "chosen_parameters",
    "discretize",
    "euler",
    "implicit_trapezoid",
    "math",
    "rk4",
    "sample",
    "shifted",
    "simulate",
    "with_free_parameters",
    "without_noise",
]
__version__ = "0.1.0"
if not TYPE_CHECKING:  # else every name would pass the type checker
    __getattr__, __dir__ = lazily(__name__, _HOMES)

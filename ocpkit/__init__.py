"""Optimal control: declare a problem once, solve it by DDP, and train networks with the same recursion."""

from ocpkit import math
from ocpkit.check import DerivativeReport, check_derivatives
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost, LeastSquares
from ocpkit.integrate import discretize, euler, implicit_trapezoid, rk4
from ocpkit.problem import Constraint, Cost, Dynamics, Problem, Stage, TerminalCost
from ocpkit.solution import Iteration, Solution, Status
from ocpkit.solvers import DDP, EMSA, FDDP, ILQR, IPOPT, MSA, SQP, Fatrop, GradientDescent

__all__ = [
    "DDP",
    "EMSA",
    "FDDP",
    "ILQR",
    "IPOPT",
    "MSA",
    "SQP",
    "Constraint",
    "Cost",
    "DerivativeReport",
    "Dynamics",
    "Fatrop",
    "FunctionCost",
    "FunctionDynamics",
    "FunctionTerminalCost",
    "GradientDescent",
    "Iteration",
    "LeastSquares",
    "Problem",
    "ProblemError",
    "Solution",
    "Stage",
    "Status",
    "TerminalCost",
    "UnsupportedProblem",
    "check_derivatives",
    "discretize",
    "euler",
    "implicit_trapezoid",
    "math",
    "rk4",
]
__version__ = "0.1.0"

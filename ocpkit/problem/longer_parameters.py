"""Stages whose costs pay for more than they declare, by numbers that enter as parameters: p' = (p, extra).

An augmented Lagrangian pays for constraints at given multipliers, an expected cost for noise at a given V_xx. Since
those numbers are parameters, new ones neither trace nor compile anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import casadi as ca

from ocpkit.autodiff.symbol import to_casadi
from ocpkit.problem.functions import FunctionCost, FunctionTerminalCost, LeastSquares
from ocpkit.problem.stage import Cost, Stage, TerminalCost

Expression = Callable[..., ca.SX]
"""A function of (x, u, p'), at the end of (x, p'), of symbols."""


@dataclass(frozen=True)
class Price:
    """Penalty beside a cost, as an expression of (x, u, p'), at the end of (x, p').

    Attributes
    ----------
    value
        The price (1,).
    residual
        r (k,) where the price is ½‖r‖², so that a cost of least squares stays one.
    rows
        What the priced cost brings beside its value; see `ocpkit.problem.functions.FunctionCost`.
    """

    value: Expression
    residual: Expression | None = None
    rows: ca.Function | None = None


@dataclass(frozen=True)
class LongerParameters:
    """p' (width,), whose first `p_size` entries are p."""

    p_size: int
    width: int

    def own(self, *arguments: Any) -> list[ca.SX]:
        """Return (…, p) of (…, p')."""
        *z, extended = map(to_casadi, arguments)
        return [*z, extended[: self.p_size]]

    def stage(self, stage: Stage, price: Price, where: str, name: str = "cost", **changes: Any) -> Stage:
        """Return a stage of p' that pays a price beside its cost.

        Parameters
        ----------
        where, name
            How messages call the cost as it was, and as it will be.
        changes
            Other fields of the stage.

        Raises
        ------
        UnsupportedProblem
            If the cost cannot be traced.
        """
        sizes = (stage.dynamics.state_size, stage.dynamics.control_size)
        function = self._function(stage.cost, price, where)
        cost = FunctionCost(function, *sizes, parameter_size=self.width, name=name, rows=price.rows)
        return replace(stage, dynamics=stage.dynamics.extended(self.p_size, self.width), cost=cost, **changes)

    def terminal_cost(self, cost: TerminalCost, price: Price, where: str) -> TerminalCost:
        """Return a terminal cost of p' that pays a price as well; raises like `stage`."""
        function = self._function(cost, price, where)
        return FunctionTerminalCost(function, cost.state_size, parameter_size=self.width, rows=price.rows)

    def _function(self, cost: Cost | TerminalCost, price: Price, where: str) -> Any:
        residual, of_price = cost.residual_graph, price.residual
        if residual is not None and of_price is not None:
            return LeastSquares(lambda *z: ca.vertcat(residual(*self.own(*z)), of_price(*z)))
        value = cost.value_graph(self.p_size, where)
        return lambda *z: value(*self.own(*z)) + price.value(*z)


def free_of_charge(*arguments: Any) -> ca.SX:
    """A price of 0."""
    return ca.SX(0)

"""Small dense linear algebra as CasADi expressions: loops unrolled, decisions as selections between numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca

from ocpkit.recursion.box import ROUNDING, BoxMinimum, BoxSearch

STEPS, STEPS_PER_ENTRY = 2, 2  # of the virtual machine, which goes through all of them


class SymbolicCholesky:
    """A symmetric positive definite matrix (m, m) of expressions, factored by unrolled formulas.

    Attributes
    ----------
    pivots
        Squares of the factor's diagonal (m,); one that is not positive means that there is no factor.
    """

    def __init__(self, matrix: ca.SX) -> None:
        m = matrix.shape[0]
        self._factor, pivots = ca.SX.zeros(m, m), list[ca.SX]()
        L = self._factor
        for j in range(m):
            column = matrix[j:, j] - L[j:, :j] @ L[j, :j].T
            pivots.append(column[0])
            L[j:, j] = column / ca.sqrt(column[0])
        self.pivots = ca.vertcat(ca.SX(0, 1), *pivots)

    def solve(self, right: ca.SX) -> ca.SX:
        """Solve for a matrix (m, k)."""
        L, m = self._factor, right.shape[0]
        y = ca.SX.zeros(*right.shape)
        for i in range(m):
            y[i, :] = (right[i, :] - L[i, :i] @ y[:i, :]) / L[i, i]
        for i in reversed(range(m)):
            y[i, :] = (y[i, :] - L[i + 1 :, i].T @ y[i + 1 :, :]) / L[i, i]
        return y

    def dense(self) -> ca.SX:
        """Return the matrix."""
        return self._factor @ self._factor.T


@dataclass(frozen=True)
class UnrolledBounds:
    """Bounds of the step of one stage as expressions: `recursion.box.StepBounds` of the virtual machine.

    Attributes
    ----------
    limits
        lower − u, upper − u and the multipliers of an earlier pass, (m,) each.
    checks
        Takes the pivots of the factors, and whether the search needs more steps.
    """

    limits: Sequence[ca.SX]
    checks: list[ca.SX]

    def minimize(self, t: int, H: ca.SX, g: ca.SX) -> BoxMinimum:
        """Minimize ½ kᵀ H k + gᵀ k (m,) within the bounds."""
        minimum, pivots, unfinished = unrolled_minimum(H, g, *self.limits)
        self.checks.extend([pivots, unfinished])
        return minimum


def unrolled_minimum(
    H: ca.SX, g: ca.SX, lower: ca.SX, upper: ca.SX, previous: ca.SX
) -> tuple[BoxMinimum, ca.SX, ca.SX]:
    """`minimize_in_box` with as many steps as are nearly always enough; what comes after the last one changes nothing.

    Returns
    -------
    minimum
        The minimizer.
    pivots
        Of the factors of all steps that were needed; 1 for the others.
    unfinished
        Not zero where more steps are needed, so that the minimizer is none.
    """
    search = BoxSearch(H, g, lower, upper, previous, times=ca.mtimes, rounding=ROUNDING, never=ca.SX(0))
    pivots = list[ca.SX]()
    for _ in range(STEPS + STEPS_PER_ENTRY * g.numel()):
        factor = _factor(H, search.active)
        pivots.append(ca.if_else(search.finished, 1, factor.pivots))
        search.advance(factor)
    factor, free = _factor(H, search.active), 1 - search.active
    minimum = search.minimum(lambda right: factor.solve(ca.repmat(free, 1, right.shape[1]) * right))
    return minimum, ca.vertcat(*pivots), 1 - search.finished


def _factor(H: ca.SX, active: ca.SX) -> SymbolicCholesky:
    """Factor H with the rows and columns of an identity for what is active."""
    free = 1 - active
    return SymbolicCholesky((free @ free.T) * H + ca.diag(active))

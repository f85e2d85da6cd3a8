"""Values and derivatives of the nonlinear program at a point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.solvers.primal_dual.layout import Layout, cut


class Values(NamedTuple):
    """J, the gaps f_t − x_{t+1}, and the rows g."""

    cost: float
    gaps: Array
    rows: Array

    @property
    def finite(self) -> bool:
        """Whether all are numbers."""
        return bool(np.isfinite(self.cost) and np.isfinite(self.gaps).all() and np.isfinite(self.rows).all())


@dataclass(frozen=True)
class Blocks:
    """Derivatives at one point: the gradient of J, and matrices, those of successive stages one after another.

    Attributes
    ----------
    gradient
        ∇J, like w.
    dynamics
        [f_x, f_u] (n', n + m) of stages 0 … T-1.
    rows
        [g_x, g_u] (k, n + m) of every stage, and g_x (k, n) of the end.
    hessians
        ∇²_zz (σ ℓ + λᵀ f + yᵀ g) of every stage, and of the end.
    """

    layout: Layout
    gradient: Array
    dynamics: Array
    rows: Array
    hessians: Array

    @cached_property
    def dynamics_of(self) -> list[Array]:
        """Matrices of `dynamics` by stage."""
        return cut(self.dynamics, [(n, len_z) for n, len_z in zip(self.layout.states[1:], self.layout.widths)])

    @cached_property
    def rows_of(self) -> list[Array]:
        """Matrices of `rows` by stage."""
        return cut(self.rows, [*zip(self.layout.rows, self.layout.widths)])

    @cached_property
    def hessians_of(self) -> list[Array]:
        """Matrices of `hessians` by stage."""
        return cut(self.hessians, [(width, width) for width in self.layout.widths])

    def along(self, costates: Array, multipliers: Array) -> Array:
        """Return the gradient of the Lagrangian J + λᵀ gaps + yᵀ rows, like w."""
        found = self.gradient.copy()
        for where, G, row in self.layout.runs(self.rows, self.layout.rows):
            found[where] += np.einsum("tkz,tk->tz", G, multipliers[row].reshape(G.shape[:2])).ravel()
        for where, F, gap in self.layout.runs(self.dynamics, self.layout.states[1:]):
            found[where] += np.einsum("tkz,tk->tz", F, costates[gap].reshape(F.shape[:2])).ravel()
        found[self.layout.following] -= costates
        return found

    def curved(self, d: Array) -> Array:
        """Return the Hessian times d, like w."""
        found = np.zeros_like(d)
        for where, H, _ in self.layout.runs(self.hessians, self.layout.widths):
            found[where] = np.einsum("tij,tj->ti", H, d[where].reshape(H.shape[:2])).ravel()
        return found

    def linear(self, d: Array) -> tuple[Array, Array]:
        """Return what d does to the gaps and to the rows, to first order."""
        gaps, rows = -d[self.layout.following], np.zeros(sum(self.layout.rows))
        for where, F, gap in self.layout.runs(self.dynamics, self.layout.states[1:]):
            gaps[gap] += np.einsum("tkz,tz->tk", F, d[where].reshape(len(F), -1)).ravel()
        for where, G, row in self.layout.runs(self.rows, self.layout.rows):
            rows[row] = np.einsum("tkz,tz->tk", G, d[where].reshape(len(G), -1)).ravel()
        return gaps, rows

    def costates(self, multipliers: Array, of_bounds: Array) -> Array:
        """Return λ for which the gradient of the Lagrangian by x_1 … x_T vanishes, flat like the gaps."""
        layout, found = self.layout, np.zeros(sum(self.layout.states[1:]))
        slope = self.gradient + of_bounds
        for z, G, row in zip(layout.z, self.rows_of, layout.row):
            slope[z] += G.T @ multipliers[row]
        for t in reversed(range(layout.horizon)):
            found[layout.gap[t]] = slope[layout.x[t + 1]]
            slope[layout.z[t]] += self.dynamics_of[t].T @ found[layout.gap[t]]
        return found

    @property
    def first_not_finite(self) -> int | None:
        """First stage (T: the end) whose derivatives are not all numbers."""
        series = [
            self.hessians_of,
            self.rows_of,
            [self.gradient[z] for z in self.layout.z],
            [*self.dynamics_of, np.zeros(0)],
        ]
        for t, matrices in enumerate(zip(*series)):
            if not all(np.isfinite(each).all() for each in matrices):
                return t
        return None

    @property
    def finite(self) -> bool:
        """Whether all are numbers."""
        return all(np.isfinite(each).all() for each in (self.gradient, self.dynamics, self.rows, self.hessians))

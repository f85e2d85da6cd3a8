"""The KKT system of one Newton step, solved by one sweep over the stages.

    minimize over d   Σ ½ z_tᵀ H_t z_t + q_tᵀ z_t          z_t = (δx_t, δu_t), δx_0 = 0
    subject to        F_t z_t − δx_{t+1} + b_t = C_t λ_{t+1},       G_t z_t + h_t = D_t y_t

Rows have a compliance D > 0: that of a slack under its barrier, 1/Σ, or a small one that regularizes an equality. So
they are eliminated in place, y = D⁻¹ (G z + h), and what is left is the Bellman step on H + Gᵀ D⁻¹ G. Dynamics have a
compliance C > 0 only where their gaps are elastic (`restoration`); it softens the value of the next state,
(V_xx⁻¹ + C)⁻¹ in place of V_xx. With R = √C and M = I + R V_xx R this is R⁻¹ M⁻¹ R V_xx, in which nothing cancels,
however stiff V_xx is and however soft the gaps: V_xx − V_xx R M⁻¹ R V_xx would lose all digits of R V_xx R.

The system has the inertia of a minimum exactly where every Q_uu is positive definite, and every M (δx_0 is fixed);
the sweep finds out by its Cholesky factors.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lapack

from ocpkit.boundary.arrays import Array
from ocpkit.engines.c.kernels import Kernel
from ocpkit.engines.c.library import struct_fields
from ocpkit.errors import NotPositiveDefinite
from ocpkit.solvers.primal_dual.blocks import Blocks
from ocpkit.solvers.primal_dual.layout import cut


class Weights(NamedTuple):
    """Additions to the second derivatives, one number per entry.

    Attributes
    ----------
    variables
        Diagonal added to H, like w: Σ of the bounds, and the damping.
    compliance
        D of the rows.
    elastic
        C > 0 of the gaps, or None where the dynamics hold.
    """

    variables: Array
    compliance: Array
    elastic: Array | None


class Step(NamedTuple):
    """Solution of the system: d like w, and the new multipliers of gaps and rows."""

    d: Array
    costates: Array
    multipliers: Array


class Soft(NamedTuple):
    """R = √C, and the factor of M = I + R V_xx R."""

    root: Array
    factor: Array

    def slope(self, v: Array) -> Array:
        """Return R⁻¹ M⁻¹ R v, which is V_x before the gap where v is V_x behind it."""
        return _solve(self.factor, self.root * v) / self.root

    def landed(self, x: Array, slope: Array) -> Array:
        """Return the state behind the gap, R M⁻¹ R⁻¹ x − C slope, where the dynamics lead to x."""
        return self.root * (_solve(self.factor, x / self.root) - self.root * slope)


class Factors:
    """The sweep's factors, with which any right-hand side is solved for.

    Attributes
    ----------
    gains
        K (m, n) of stages 0 … T-1.
    values
        V_xx (n, n) at stages 0 … T.

    Raises
    ------
    NotPositiveDefinite
        With the stage at which the inertia is that of no minimum.
    """

    def __init__(self, blocks: Blocks, weights: Weights) -> None:
        self.layout, self.blocks, self.weights = blocks.layout, blocks, weights
        T = self.layout.horizon
        self.values: list[Array] = [np.zeros(0)] * (T + 1)
        self.softened: list[Array] = [np.zeros(0)] * (T + 1)  # what stands for V_xx behind elastic dynamics
        self.soft: list[Soft | None] = [None] * T
        self.factors: list[Array] = [np.zeros(0)] * T
        self.gains: list[Array] = [np.zeros(0)] * T
        self.values[T] = self._hessian(T)
        for t in reversed(range(T)):
            self._step(t)

    def _hessian(self, t: int) -> Array:
        """H_t + Gᵀ D⁻¹ G with its diagonal."""
        layout, H = self.layout, self.blocks.hessians_of[t].copy()
        H.flat[:: len(H) + 1] += self.weights.variables[layout.z[t]]
        G = self.blocks.rows_of[t]
        if len(G):
            H += G.T @ (G / self.weights.compliance[layout.row[t]][:, None])
        return H

    def _step(self, t: int) -> None:
        V, F, n = self.values[t + 1], self.blocks.dynamics_of[t], self.layout.states[t]
        if self.weights.elastic is not None:
            V = self._soften(t, V)
        self.softened[t + 1] = V
        Q = self._hessian(t) + F.T @ (V @ F)
        if self.layout.controls[t]:
            self.factors[t] = _cholesky(Q[n:, n:], t)
            K = -_solve(self.factors[t], Q[n:, :n])
        else:
            K = np.zeros((0, n))
        self.gains[t] = K
        value = Q[:n, :n] + Q[:n, n:] @ K
        self.values[t] = (value + value.T) / 2

    def _soften(self, t: int, V: Array) -> Array:
        assert self.weights.elastic is not None
        root = np.sqrt(self.weights.elastic[self.layout.gap[t]])
        product = root[:, None] * V
        factor = _cholesky(np.eye(len(V)) + product * root, t)
        self.soft[t] = Soft(root, factor)
        softened = _solve(factor, product) / root[:, None]
        return (softened + softened.T) / 2

    def solve(self, q: Array, b: Array, h: Array) -> Step:
        """Solve for the right-hand side: q like w, b of the gaps, h of the rows."""
        layout, T, D = self.layout, self.layout.horizon, self.weights.compliance
        feedforward: list[Array] = [np.zeros(0)] * T
        slopes: list[Array] = [np.zeros(0)] * (T + 1)
        along = h / D
        v = q[layout.z[T]] + self.blocks.rows_of[T].T @ along[layout.row[T]]
        slopes[T] = v
        for t in reversed(range(T)):
            soft = self.soft[t]
            v = v if soft is None else soft.slope(v)
            slopes[t + 1] = v
            landed = v + self.softened[t + 1] @ b[layout.gap[t]]
            Q = q[layout.z[t]] + self.blocks.dynamics_of[t].T @ landed
            if layout.rows[t]:
                Q = Q + self.blocks.rows_of[t].T @ along[layout.row[t]]
            n = layout.states[t]
            feedforward[t] = -_solve(self.factors[t], Q[n:]) if layout.controls[t] else np.zeros(0)
            v = Q[:n] + self.gains[t].T @ Q[n:]
        return self._forward(b, h, feedforward, slopes)

    def _forward(self, b: Array, h: Array, feedforward: list[Array], slopes: list[Array]) -> Step:
        layout = self.layout
        d, costates, x = np.zeros(layout.starts[-1]), np.zeros(len(b)), np.zeros(layout.states[0])
        multipliers = np.zeros(len(h))
        for t in range(layout.horizon):
            z = np.concatenate([x, feedforward[t] + self.gains[t] @ x])
            d[layout.z[t]] = z
            if layout.rows[t]:
                multipliers[layout.row[t]] = self.blocks.rows_of[t] @ z
            x = self.blocks.dynamics_of[t] @ z + b[layout.gap[t]]
            costates[layout.gap[t]] = self.softened[t + 1] @ x + slopes[t + 1]
            soft = self.soft[t]
            x = x if soft is None else soft.landed(x, slopes[t + 1])
        d[layout.z[-1]] = x
        multipliers[layout.row[-1]] = self.blocks.rows_of[-1] @ x
        return Step(d, costates, (multipliers + h) / self.weights.compliance)


def _cholesky(matrix: Array, t: int) -> Array:
    factor, info = lapack.dpotrf(matrix, lower=1, clean=0)
    if info != 0 or not np.isfinite(factor[-1, -1]):
        raise NotPositiveDefinite(t)
    return np.asarray(factor)


def _solve(factor: Array, right: Array) -> Array:
    found, _ = lapack.dpotrs(factor, right, lower=1)
    return np.asarray(found).reshape(right.shape)


class _Struct(ctypes.Structure):
    """The struct `kkt` of kernel/kkt.c."""

    _fields_ = struct_fields("kkt", "kkt.c")


class CompiledFactors:
    """The same in C; raises like `Factors`."""

    def __init__(self, library: ctypes.CDLL, blocks: Blocks, weights: Weights) -> None:
        layout = blocks.layout
        self.layout, self.library = layout, library
        sizes = [np.array(each, dtype=ctypes.c_long) for each in (layout.states, layout.controls, layout.rows)]
        n, m, _ = sizes
        self._V, (S, M) = np.empty(int((n**2).sum())), np.empty((2, int((n[1:] ** 2).sum())))
        self._K, L = np.empty(int((n[:-1] * m).sum())), np.empty(int((m**2).sum()))
        scratch = np.empty(4 * max(layout.widths) ** 2 + 4)
        arrays: list[Any] = [*sizes, blocks.dynamics, blocks.rows, blocks.hessians]
        arrays += [weights.variables, weights.compliance, weights.elastic, self._V, S, M, self._K, L, scratch]
        self._memory = [None if each is None else np.ascontiguousarray(each) for each in arrays]
        self._struct = _Struct(layout.horizon, *(None if each is None else each.ctypes.data for each in self._memory))
        failed = library.ocpkit_kkt_factor(ctypes.byref(self._struct))
        if failed >= 0:
            raise NotPositiveDefinite(failed)

    @property
    def gains(self) -> list[Array]:
        """K (m, n) of stages 0 … T-1."""
        return cut(self._K, [*zip(self.layout.controls, self.layout.states)])

    @property
    def values(self) -> list[Array]:
        """V_xx (n, n) at stages 0 … T."""
        return cut(self._V, [(n, n) for n in self.layout.states])

    def solve(self, q: Array, b: Array, h: Array) -> Step:
        """Solve for a right-hand side, as `Factors.solve`."""
        step = Step(np.empty(len(q)), np.empty(len(b)), np.empty(len(h)))
        given = [np.ascontiguousarray(each) for each in (q, b, h)]
        self.library.ocpkit_kkt_solve(ctypes.byref(self._struct), *(each.ctypes.data for each in (*given, *step)))
        return step


AnyFactors = Factors | CompiledFactors


def factorize(blocks: Blocks, weights: Weights) -> AnyFactors:
    """Factorize in C where it is there, else in NumPy; raises like `Factors`."""
    library = KERNEL.look()
    return Factors(blocks, weights) if library is None else CompiledFactors(library, blocks, weights)


def _declare(library: ctypes.CDLL) -> None:
    library.ocpkit_kkt_factor.restype, library.ocpkit_kkt_factor.argtypes = ctypes.c_long, [ctypes.c_void_p]
    library.ocpkit_kkt_solve.restype, library.ocpkit_kkt_solve.argtypes = None, [ctypes.c_void_p] * 7


KERNEL = Kernel("kkt.c", _declare)

"""The estimator half of LQG: a Kalman filter on the model of a problem (Kalman 1960; extended: Jazwinski 1970, ch. 8).

    x_{t+1} = f_t(x_t, u_t) + F_t(x_t, u_t) ε_t,      y_t = h(x_t) + D η_t,      ε_t, η_t ~ N(0, I),   x_0 ~ N(x̄_0, P_0)

With A = f_x and H = h_x, at every stage first the measurement and then the model move estimate and covariance:

    update     K = P Hᵀ (H P Hᵀ + D Dᵀ)⁻¹,    x̂ ← x̂ + K (y − h(x̂)),    P ← (I − K H) P (I − K H)ᵀ + K D Dᵀ Kᵀ
    predict    x̂ ← f(x̂, u),                   P ← A P Aᵀ + F Fᵀ

For linear f and h this is E[x | y_0 … y_t] and its covariance, and the policy that is best for the state is best on x̂
(separation principle; Åström 1970, ch. 8). P before an update obeys the controller's Riccati equation with A, B, Q, R
replaced by Aᵀ, Hᵀ, F Fᵀ, D Dᵀ, backward in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.autodiff.differentiable import Differentiable, differentiable
from ocpkit.boundary.arrays import Array, checked_vector, real_array
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.control.noise import noise_jacobians
from ocpkit.errors import ProblemError
from ocpkit.problem.angles import checked_angles, difference
from ocpkit.problem.problem import Problem

ROUNDING = 1e-12


@dataclass(frozen=True)
class Filtering:
    """The filter's gains along a trajectory, which the measurements do not change.

    Attributes
    ----------
    gains
        K_0 … K_T, (n, k) each.
    kept
        I − K_t H_t, (n, n) each: what a measurement leaves of an error.
    predicted, updated
        P_0 … P_T before and after the measurement at each stage, (n, n) each.
    """

    gains: list[Array]
    kept: list[Array]
    predicted: list[Array]
    updated: list[Array]


@dataclass
class KalmanFilter(CarriesFunctions):
    """An estimate of the state from measurements; extended where model or measurement are not linear.

    Parameters
    ----------
    problem
        The model: dynamics, noise F and parameters of its stages; x0 is the mean of the first state.
    measurement
        h(x) or h(x, p), k entries, written with `ocpkit.math`.
    measurement_noise
        D (k, j); k standard deviations, or one for all [units of y].
    covariance
        P_0 (n, n), or a number that multiplies the identity [squared units of x].
    gains
        K_0 … K_T (n, k) to be used instead of those above; P is that of the error with these.
    angles
        Indices of entries of y that are angles [rad]: y − h(x̂) is taken in [−π, π) there.

    Attributes
    ----------
    estimate, error_covariance
        x̂ (n,), and P (n, n), that of x − x̂.

    Raises
    ------
    ProblemError
        If a shape does not fit, a noise is not finite, or P_0 is no covariance.
    """

    problem: Problem
    measurement: Callable[..., Any]
    measurement_noise: ArrayLike
    covariance: ArrayLike = 0.0
    gains: Sequence[Array] | None = None
    angles: Sequence[int] = ()
    estimate: Array = field(init=False)
    error_covariance: Array = field(init=False)

    def __post_init__(self) -> None:
        n, p_size = self.problem.state_sizes[0], self.problem.parameters.shape[-1]
        self._h: Differentiable = differentiable(self.measurement, (n, p_size), "the measurement", "casadi")
        self.angles = checked_angles(self.angles, (self._h.size,), "measurements")
        self._D = _factor(self.measurement_noise, self._h.size)
        P = real_array(self.covariance, "covariance")
        self._P0 = P * np.eye(n) if P.ndim == 0 else P
        if self._P0.shape != (n, n):
            raise ProblemError(f"covariance has shape {P.shape}, expected ({n}, {n}) or one number")
        if not np.isfinite(P).all() or not np.allclose(self._P0, self._P0.T) or _negative(self._P0):
            raise ProblemError("covariance must be finite, symmetric and without negative eigenvalues")
        for t, K in enumerate(() if self.gains is None else self.gains):
            if np.shape(K) != (n, self._h.size):
                raise ProblemError(f"gains[{t}] has shape {np.shape(K)}, expected ({n}, {self._h.size})")
        self.reset()

    def reset(self) -> None:
        """Return to x0 and P_0."""
        self.estimate, self.error_covariance = np.array(self.problem.x0), self._P0

    def _parameter(self, t: int, given: ArrayLike | None) -> Array:
        """Return p of stage t, or the given ones."""
        if given is None:
            return self.problem.parameter(t)
        return checked_vector(given, self.problem.parameters.shape[-1], "parameters")

    def update(self, y: ArrayLike, t: int = 0, *, parameters: ArrayLike | None = None) -> Array:
        """Take in the measurement of stage t (T: the end); return the estimate.

        Parameters
        ----------
        y
            Measurement (k,).
        t
            Stage.
        parameters
            p of this stage (n_p,), where they are not those of the problem.

        Raises
        ------
        ProblemError
            If y has the wrong shape or is not finite, or the model makes y a certainty.
        """
        seen, p = checked_vector(y, self._h.size, "the measurement"), self._parameter(t, parameters)
        innovation = difference(seen, self._h.value(self.estimate, p), self.angles)
        K, _, self.error_covariance = self._updated(self.error_covariance, self.estimate, t, p)
        self.estimate = self.estimate + K @ innovation
        return self.estimate

    def predict(self, u: ArrayLike, t: int = 0, *, parameters: ArrayLike | None = None) -> Array:
        """Move over stage t with the control u and p as in `update`; return the estimate, now of the next state."""
        control, p = checked_vector(u, self.problem.control_sizes[t], "the control"), self._parameter(t, parameters)
        self.error_covariance = self._predicted(self.error_covariance, self.estimate, control, t, p)
        self.estimate = self.problem.stages[t].dynamics.step(self.estimate, control, p)
        return self.estimate

    def along(
        self, states: Sequence[Array], controls: Sequence[Array], feedback_gains: Sequence[Array] | None = None
    ) -> Filtering:
        """Return gains and covariances for T + 1 states and T controls, around which the model is taken as linear.

        Parameters
        ----------
        states, controls
            The trajectory.
        feedback_gains
            L_0 … L_{T-1} (m, n) of a policy on the estimates: noise that depends on states and controls is then
            averaged over all that the policy may do, and not taken on the trajectory.
        """
        found, spread = Filtering([], [], [self._P0], []), np.zeros_like(self._P0)
        for t, x in enumerate(states):
            before = found.predicted[t]
            K, kept, P = self._updated(before, x, t, self.problem.parameter(t))
            found.gains.append(K)
            found.kept.append(kept)
            found.updated.append(P)
            if t == len(controls):
                break
            following = self._predicted(P, x, controls[t], t, self.problem.parameter(t))
            if feedback_gains is not None:
                spread, L = spread + before - P, feedback_gains[t]  # covariance of the estimate
                following = following + self._noise_around(t, x, controls[t], L, spread, P)
                A, B = self.problem.stages[t].dynamics.jacobians(x, controls[t], self.problem.parameter(t))
                spread = (A + B @ L) @ spread @ (A + B @ L).T
            found.predicted.append(following)
        return found

    def _noise_around(self, t: int, x: Array, u: Array, L: Array, spread: Array, P: Array) -> Array:
        """Σ_i Cov c_i (n, n) of the columns of F at estimates spread around x, errors P, and controls u + L δx̂."""
        stage, p = self.problem.stages[t], self.problem.parameter(t)
        if stage.noise is None:
            return np.zeros_like(P)
        C = noise_jacobians(stage, x, u, p)
        of_state, of_control = C[:, :, : len(x)], C[:, :, len(x) :]
        moved = of_state + of_control @ L
        total: Array = (moved @ spread @ moved.swapaxes(1, 2) + of_state @ P @ of_state.swapaxes(1, 2)).sum(axis=0)
        return total

    def measure(self, x: Array, rng: np.random.Generator, t: int = 0, *, parameters: ArrayLike | None = None) -> Array:
        """Draw y = h(x) + D η at stage t, with p as in `update`, for simulations."""
        return self._h.value(x, self._parameter(t, parameters)) + self._D @ rng.normal(size=self._D.shape[1])

    def start(self, rng: np.random.Generator) -> Array:
        """Draw a first state x_0 ~ N(x̄_0, P_0), for simulations."""
        values, vectors = np.linalg.eigh(self._P0)
        spread: Array = vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.normal(size=len(values)))
        return self.problem.x0 + spread

    def _updated(self, P: Array, x: Array, t: int, p: Array) -> tuple[Array, Array, Array]:
        """Return K, I − K H, and P after the measurement."""
        H = self._h.jacobian(x, p)
        R = self._D @ self._D.T
        try:
            K = np.asarray(np.linalg.solve(H @ P @ H.T + R, H @ P).T if self.gains is None else self.gains[t], float)
        except np.linalg.LinAlgError as error:
            raise ProblemError(
                f"the model leaves no doubt of a measurement at stage {t}, so it corrects nothing: "
                "give it measurement_noise, or leave it out"
            ) from error
        kept = np.eye(len(P)) - K @ H
        return K, kept, kept @ P @ kept.T + K @ R @ K.T

    def _predicted(self, P: Array, x: Array, u: Array, t: int, p: Array) -> Array:
        stage = self.problem.stages[t]
        A, _ = stage.dynamics.jacobians(x, u, p)
        F = stage.noise_matrix(x, u, p)
        return A @ P @ A.T + F @ F.T


def _negative(covariance: Array) -> bool:
    """Whether an eigenvalue is negative, beyond the rounding of one that is zero."""
    eigenvalues = np.linalg.eigvalsh(covariance)
    return bool(eigenvalues[0] < -ROUNDING * np.abs(eigenvalues).max())


def _factor(noise: ArrayLike, rows: int) -> Array:
    """Return D (k, j)."""
    D = real_array(noise, "measurement_noise")
    D = D if D.ndim == 2 else np.diag(np.broadcast_to(D, rows)) if D.ndim == 0 or D.shape == (rows,) else D
    if D.ndim != 2 or len(D) != rows:
        raise ProblemError(f"measurement_noise has shape {D.shape}, expected ({rows}, j), ({rows},) or one number")
    if not np.isfinite(D).all():
        raise ProblemError(f"measurement_noise is not finite: {D}")
    return D

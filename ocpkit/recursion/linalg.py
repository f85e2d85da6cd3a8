"""The linear algebra of the Bellman step, one name for NumPy arrays, torch tensors (batched or not) and CasADi."""

from __future__ import annotations

from typing import Any

import casadi as ca
import numpy as np

from ocpkit.errors import NotPositiveDefinite

SYMBOLIC = (ca.SX, ca.MX)


def transpose(matrix: Any) -> Any:
    """Swap the last two dimensions."""
    return matrix.T if isinstance(matrix, SYMBOLIC) else matrix.swapaxes(-1, -2)


def matvec(matrix: Any, vector: Any) -> Any:
    """Matrix times vector, over any leading batch dimensions; operators bring their own `matvec`."""
    if hasattr(matrix, "matvec"):
        return matrix.matvec(vector)
    if isinstance(vector, SYMBOLIC) or vector.ndim == 1:
        return matrix @ vector
    return (matrix @ vector[..., None])[..., 0]


def psd_root(matrix: Any) -> Any:
    """Return R with R Rᵀ = the nearest positive semidefinite matrix (r, r) to a symmetric one."""
    if matrix.shape[-1] == 1:
        return matrix.clip(0) ** 0.5
    eigenvalues, vectors = eigh((matrix + transpose(matrix)) / 2)
    return vectors * eigenvalues.clip(0)[..., None, :] ** 0.5


def eigh(matrix: Any) -> tuple[Any, Any]:
    """Eigenvalues (…, r) and orthonormal eigenvectors (…, r, r) of a symmetric matrix."""
    if isinstance(matrix, np.ndarray):
        eigenvalues, vectors = np.linalg.eigh(matrix)
        return eigenvalues, vectors
    import torch

    values, basis = torch.linalg.eigh(matrix)
    return values, basis


def identity_like(matrix: Any) -> Any:
    """Return the identity of the same size, library, dtype and device as a square matrix (…, r, r)."""
    if isinstance(matrix, np.ndarray):
        return np.eye(matrix.shape[-1])
    if isinstance(matrix, SYMBOLIC):
        return ca.DM.eye(matrix.shape[-1])
    import torch

    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def select(condition: Any, first: Any, second: Any) -> Any:
    """Return `first` where the condition holds, else `second`, entry by entry."""
    if isinstance(condition, SYMBOLIC):
        return ca.if_else(condition, first, second)
    if isinstance(condition, (bool, np.bool_, np.ndarray)):
        return np.where(condition, first, second)
    import torch

    return torch.where(condition, first, second)


def diagonal(matrix: Any) -> Any:
    """Return the diagonal (…, r) of square matrices (…, r, r)."""
    if isinstance(matrix, SYMBOLIC):
        return ca.diag(matrix)
    return matrix.diagonal(0, -2, -1)


def diagonal_matrix(vector: Any) -> Any:
    """Return the square matrices (…, r, r) with these diagonals (…, r)."""
    if isinstance(vector, SYMBOLIC):
        return ca.diag(vector)
    if isinstance(vector, np.ndarray):
        return vector[..., None] * np.eye(vector.shape[-1])
    import torch

    return torch.diag_embed(vector)


def dot(a: Any, b: Any) -> Any:
    """Inner product over the last dimension (of operators' own vectors: their `inner_product`)."""
    if isinstance(a, SYMBOLIC):
        return ca.dot(a, b)
    return a.inner_product(b) if hasattr(a, "inner_product") else (a * b).sum(-1)


def either(a: Any, b: Any) -> Any:
    """Disjunction of two conditions; symbols that are 0 or 1, or tensors of truth values."""
    return ca.fmax(a, b) if isinstance(a, SYMBOLIC) else a | b


def negation(condition: Any) -> Any:
    """Negation of a condition, as `either`."""
    return 1 - condition if isinstance(condition, SYMBOLIC) else ~condition


def total(vector: Any) -> Any:
    """Sum of a vector of symbols, or of vectors (…, m), (…, 1)."""
    return ca.sum1(vector) if isinstance(vector, SYMBOLIC) else vector.sum(-1, keepdim=True)


def smallest(vector: Any, most: float) -> Any:
    """Smallest entry, or a number that is smaller still; as `total`."""
    if isinstance(vector, SYMBOLIC):
        return ca.fmin(most, ca.mmin(vector))
    return vector.amin(-1, keepdim=True).clamp(max=most)


def anywhere(condition: Any) -> Any:
    """Whether a condition holds for any entry; as `either`, of the shape of `total`."""
    return ca.sum1(condition) > 0 if isinstance(condition, SYMBOLIC) else condition.any(-1, keepdim=True)


def half_square(residual: Any) -> Any:
    """½‖r‖² of a vector (k,) of numbers, symbols or CasADi expressions."""
    return (ca.sumsqr(residual) if isinstance(residual, SYMBOLIC) else residual @ residual) / 2


class Cholesky:
    """A symmetric positive definite matrix (m, m), factored once and solved with many times.

    Raises
    ------
    NotPositiveDefinite
        If there is no factor, or its last pivot is not finite, which a NaN in the matrix sees to.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        if not isinstance(matrix, np.ndarray):
            self._factor = _torch_cholesky(matrix)
        elif matrix.ndim == 2:
            self._factor = _lapack_cholesky(matrix)
        else:
            try:
                self._factor = np.linalg.cholesky(matrix)
            except np.linalg.LinAlgError as error:
                raise NotPositiveDefinite from error
            if not np.isfinite(self._factor[..., -1:, -1:]).all():
                raise NotPositiveDefinite

    def solve(self, right: Any) -> Any:
        """Solve for a vector (m,) or matrix (m, k)."""
        if 0 in right.shape:
            return right
        vector = right.ndim < self._matrix.ndim
        columns = right[..., None] if vector else right
        solution: Any
        if not isinstance(right, np.ndarray):
            import torch

            solution = torch.cholesky_solve(columns, self._factor)
        elif self._matrix.ndim == 2:
            from scipy.linalg.lapack import dpotrs

            solution = dpotrs(self._factor, columns, lower=1)[0]
        else:
            solution = np.linalg.solve(self._matrix, columns)
        return solution[..., 0] if vector else solution

    def matvec(self, vector: Any) -> Any:
        """Multiply a vector (m,)."""
        return matvec(self._matrix, vector)

    def dense(self) -> Any:
        """Return the matrix."""
        return self._matrix


def _lapack_cholesky(matrix: Any) -> Any:
    from scipy.linalg.lapack import dpotrf

    if matrix.shape[-1] == 0:
        return matrix
    factor, failed = dpotrf(matrix, lower=1)
    if failed or not np.isfinite(factor[-1, -1]):
        raise NotPositiveDefinite
    return factor


def _torch_cholesky(matrix: Any) -> Any:
    import torch

    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any():
        raise NotPositiveDefinite
    return factor

"""Many small matrices factored, and many quadratic programs in boxes solved, at once: `box` on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ocpkit.recursion.box import STEPS, STEPS_PER_ENTRY, BoxMinimum, BoxSearch


class Factor:
    """Cholesky factors of symmetric matrices (B, m, m); the identity where there is none.

    Attributes
    ----------
    failed
        Where a matrix is not positive definite, or not finite, (B,).
    """

    def __init__(self, matrix: Tensor) -> None:
        factor, info = torch.linalg.cholesky_ex(matrix)
        self.failed = (info > 0) | ~factor.isfinite().flatten(1).all(-1)
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        self._factor = torch.where(self.failed[:, None, None], identity, factor)
        self._matrix = matrix

    def solve(self, right: Tensor) -> Tensor:
        """Solve for vectors (B, m) or matrices (B, m, n)."""
        columns = right[..., None] if right.ndim == 2 else right
        solution = torch.cholesky_solve(columns, self._factor)
        return solution[..., 0] if right.ndim == 2 else solution

    def dense(self) -> Tensor:
        """Return the matrices."""
        return self._matrix


def minimize_in_boxes(
    H: Tensor, g: Tensor, lower: Tensor, upper: Tensor, previous: Tensor
) -> tuple[BoxMinimum, Tensor]:
    """Minimize ½ kᵀ H k + gᵀ k over lower ≤ k ≤ upper, problem by problem as `box.minimize_in_box` does.

    Parameters
    ----------
    H, g
        (B, m, m) symmetric and (B, m).
    lower, upper
        (B, m), of which 0 is between.
    previous
        Multipliers (B, m) of similar problems, zero where there are none.

    Returns
    -------
    minimum
        The minimizers.
    failed
        Where H is not positive definite among entries that are free, (B,).
    """
    failed = torch.zeros(len(g), dtype=torch.bool, device=g.device)
    rounding, never = 16 * torch.finfo(H.dtype).eps, failed[:, None].clone()
    search = BoxSearch(H, g, lower, upper, previous, times=_times, rounding=rounding, never=never)
    for _ in range(STEPS + STEPS_PER_ENTRY * g.shape[-1]):
        factor = _free_factor(H, search.active)
        failed |= ~search.finished[:, 0] & factor.failed
        search.advance(factor)
        search.finished = search.finished | failed[:, None]
        if bool(search.finished.all()):
            break
    failed |= ~search.finished[:, 0]
    factor, free = _free_factor(H, search.active), ~search.active[:, :, None]

    def solve(right: Tensor) -> Tensor:
        return factor.solve(torch.where(free if right.ndim == 3 else free[..., 0], right, 0))

    return search.minimum(solve), failed


def _free_factor(H: Tensor, active: Tensor) -> Factor:
    """Factor H with the rows and columns of an identity for what is active."""
    free = ~active
    return Factor(torch.where(free[:, :, None] & free[:, None, :], H, torch.diag_embed(active.to(H.dtype))))


def _times(H: Tensor, k: Tensor) -> Tensor:
    return (H * k[:, None, :]).sum(-1)

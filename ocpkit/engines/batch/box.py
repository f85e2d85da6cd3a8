"""Many small matrices factored, and many quadratic programs in boxes solved, at once: `box` on torch tensors.

What one problem decides by a branch is a selection here; the search ends when every problem's has, and what comes after
the last step of one changes nothing of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ocpkit.recursion.box import STEPS, STEPS_PER_ENTRY, BoxMinimum


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


def minimise_in_boxes(
    H: Tensor, g: Tensor, lower: Tensor, upper: Tensor, previous: Tensor
) -> tuple[BoxMinimum, Tensor]:
    """Minimise ½ kᵀ H k + gᵀ k over lower ≤ k ≤ upper, problem by problem as `box.minimise_in_box` does.

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
        The minimisers.
    failed
        Where H is not positive definite among entries that are free, (B,).
    """
    rounding = 16 * torch.finfo(H.dtype).eps
    k = _start(H, g, lower, upper, previous)
    slope = g + _times(H, k)
    held = _outward(k, slope, lower, upper, torch.zeros_like(k))
    failed = torch.zeros(len(g), dtype=torch.bool, device=g.device)
    finished = failed.clone()
    for _ in range(STEPS + STEPS_PER_ENTRY * g.shape[-1]):
        factor = _free_factor(H, held)
        failed |= ~finished & factor.failed
        step = -factor.solve(torch.where(held, 0, slope))
        bound = torch.where(step > 0, upper, lower)
        lengths = torch.where(step != 0, (bound - k) / step, torch.inf)
        length = lengths.amin(-1, keepdim=True).clamp(max=1.0)
        stops = lengths <= length
        k = torch.where(finished[:, None], k, torch.where(stops, bound, k + length * step))
        slope = g + _times(H, k)
        cut = length < 1
        lenience = rounding * (g.abs() + _times(H.abs(), k.abs()))
        wrong = held & ~_outward(k, slope, lower, upper, lenience)
        following = torch.where(cut, held | stops, held & ~wrong)
        settled = ~cut[:, 0] & ~wrong.any(-1)
        held = torch.where((finished | settled)[:, None], held, following)
        finished |= settled | failed
        if bool(finished.all()):
            break
    failed |= ~finished
    factor = _free_factor(H, held)
    free = ~held[:, :, None]

    def solve(right: Tensor) -> Tensor:
        return factor.solve(torch.where(free if right.ndim == 3 else free[..., 0], right, 0))

    return BoxMinimum(H, k, torch.where(held, -slope, 0), solve), failed


def _start(H: Tensor, g: Tensor, lower: Tensor, upper: Tensor, previous: Tensor) -> Tensor:
    """Return k with what was held before at its bounds, unless k = 0 is better."""
    k = torch.where(previous > 0, upper, torch.where(previous < 0, lower, 0))
    better = (k * (2 * g + _times(H, k))).sum(-1, keepdim=True) <= 0
    return torch.where(better, k, 0)


def _free_factor(H: Tensor, held: Tensor) -> Factor:
    """Factor H with the rows and columns of an identity for what is held."""
    free = ~held
    return Factor(torch.where(free[:, :, None] & free[:, None, :], H, torch.diag_embed(held.to(H.dtype))))


def _outward(k: Tensor, slope: Tensor, lower: Tensor, upper: Tensor, lenience: Tensor) -> Tensor:
    return ((k <= lower) & (slope > -lenience)) | ((k >= upper) & (slope < lenience)) | (lower == upper)


def _times(H: Tensor, k: Tensor) -> Tensor:
    return (H * k[:, None, :]).sum(-1)

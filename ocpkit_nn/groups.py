"""The options of `DDPNOpt`: parameter groups as torch has them, one for all controls of a stage, and their ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ocpkit_nn.stages import Stage


def with_rest(groups: list[dict[str, Any]], stages: list[Stage]) -> list[dict[str, Any]]:
    """Return the groups with the parameters that none of them names in one more.

    Raises
    ------
    ValueError
        If a group names parameters that are none of the stages'.
    """
    groups = [{**group, "params": list(group["params"])} for group in groups]
    named = {id(p) for group in groups for p in group["params"]}
    every = [p for stage in stages for p in stage.layer.parameters]
    unknown = named - {id(p) for p in every}
    if unknown:
        raise ValueError(f"{len(unknown)} parameters in groups do not belong to the model's stages")
    rest = [p for p in every if id(p) not in named]
    return [*groups, {"params": rest}] if rest else groups


def group_of_each(stages: Sequence[Stage], groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the group of each stage.

    Raises
    ------
    ValueError
        If the parameters of a stage are in different groups.
    """
    owner = {id(p): group for group in groups for p in group["params"]}
    for stage in stages:
        if len({id(owner[id(p)]) for p in stage.layer.parameters}) > 1:
            raise ValueError(f"the parameters of stage {stage.name} are in different groups; a control has one group")
    return [owner[id(stage.layer.parameters[0])] for stage in stages]


def check_whole(
    terminal: str, rank: int | None, tikhonov: float, max_grad_norm: float | None, curvature_scale: float | None
) -> None:
    """Check the options that all groups share.

    Raises
    ------
    ValueError
        For one that is out of range, or a rank without use.
    """
    if terminal == "rank" and rank is None:
        raise ValueError("terminal='rank' needs a rank, the number of columns")
    if rank is not None and (terminal not in ("rank", "montecarlo") or rank < 1):
        raise ValueError(
            f"rank is a number of columns for terminal='rank' or 'montecarlo', got {rank} for {terminal!r}"
        )
    if not 0 <= tikhonov < math.inf:
        raise ValueError(f"tikhonov must be finite and not negative, got {tikhonov!r}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be positive, got {max_grad_norm!r}; leave it out for no limit")
    if curvature_scale is not None and not 0 <= curvature_scale < math.inf:
        raise ValueError(f"curvature_scale must be finite and not negative, got {curvature_scale!r}")


def check_batch(inputs: object, targets: object) -> None:
    """Check the kind of what a step is given.

    Raises
    ------
    TypeError
        If one of them is no tensor (B, …).
    ValueError
        For an empty batch.
    """
    for name, value in (("inputs", inputs), ("targets", targets)):
        if not isinstance(value, Tensor) or value.ndim < 1:
            what = "a tensor without axes" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(
                f"{name} must be one tensor (B, …), got {what}: put several into one along axis 1, for the network's "
                "first module to split"
            )
        if not len(value):
            raise ValueError(f"the batch is empty: {name} have shape {tuple(value.shape)}; leave such a batch out")


def check_options(group: dict[str, Any]) -> None:
    """Check the options of one group.

    Raises
    ------
    ValueError
        For one that is out of range.
    """
    for name in ("lr", "eps", "damping"):
        if not 0 < group[name] < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {group[name]!r}")
    for name in ("momentum", "decay"):
        if not 0 <= group[name] < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {group[name]!r}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise ValueError(f"betas must lie in [0, 1), got {group['betas']!r}")
    if not 0 <= group["weight_decay"] < math.inf:
        raise ValueError(f"weight_decay must be finite and not negative, got {group['weight_decay']!r}")
    if group["basis_every"] < 1:
        raise ValueError(f"basis_every must be at least 1, got {group['basis_every']!r}")

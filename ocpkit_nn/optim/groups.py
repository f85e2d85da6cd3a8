"""The options of `DDPNOpt`: parameter groups as torch has them, one for all controls of a stage, and their ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from ocpkit.errors import unknown_name
from ocpkit_nn.layers.stages import Stage


def with_rest(groups: Sequence[dict[str, Any]], parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Return the groups with the parameters of a model that none of them names in one more, frozen ones too."""
    groups = [{**group, "params": list(group["params"])} for group in groups]
    named = {i for group in groups for i in ids_of(group["params"])}
    rest = [p for p in parameters if id(p) not in named]
    return [*groups, {"params": rest}] if rest else groups


def ids_of(params: Iterable[Any]) -> set[int]:
    """Return the ids of the parameters of a group, which torch lets have names before them."""
    return {id(p[1] if isinstance(p, tuple) else p) for p in params}


def check_known(named: set[int], parameters: Iterable[Tensor]) -> None:
    """Check that parameters, given by their ids, are the model's.

    Raises
    ------
    ValueError
        If some are not.
    """
    if unknown := named - {id(p) for p in parameters}:
        raise ValueError(f"{len(unknown)} parameters in groups do not belong to the model's stages")


def group_of_each(stages: Sequence[Stage], groups: Sequence[dict[str, Any]]) -> list[int]:
    """Return the group of each stage, by its place in the list.

    Raises
    ------
    ValueError
        If the parameters of a stage are in different groups, or in none.
    """
    owner = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
    found = []
    for stage in stages:
        own = [owner.get(id(p)) for p in stage.layer.parameters]
        if None in own:
            raise ValueError(
                f"parameters of stage {stage.name} are in no group: give them one by add_param_group (those of a stage "
                "that has a group go into its list of params), or freeze them by requires_grad_(False)"
            )
        if len(set(own)) > 1:
            raise ValueError(f"the parameters of stage {stage.name} are in different groups; a control has one group")
        found.append(owner[id(stage.layer.parameters[0])])
    return found


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Check that a named choice exists.

    Raises
    ------
    ValueError
        If it does not, with the names that do.
    """
    if name not in known:
        raise unknown_name(kind, name, known)


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
        if not 0 <= group.get(name, 0.0) < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {group[name]!r}")
    if not all(0 <= beta < 1 for beta in group.get("betas", ())):
        raise ValueError(f"betas must lie in [0, 1), got {group['betas']!r}")
    if not 0 <= group["weight_decay"] < math.inf:
        raise ValueError(f"weight_decay must be finite and not negative, got {group['weight_decay']!r}")
    if group["basis_every"] < 1:
        raise ValueError(f"basis_every must be at least 1, got {group['basis_every']!r}")

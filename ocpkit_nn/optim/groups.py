"""Parameter groups of stages, as torch has them, with one group for each control, and the ranges of their options."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from ocpkit.errors import unknown_name
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.stages import Stage

RENAMED = {"basis_every": "eigenbasis_interval"}
"""Today's names of options in groups and saved states of earlier versions."""
RENAMED_INTERVAL = "basis_every is called eigenbasis_interval now; the old name goes with version 0.3"


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


def check_limits(max_grad_norm: float | None, micro_batch: int | None) -> None:
    """Check the limits of a step, where there are some.

    Raises
    ------
    ValueError
        For one that is out of range.
    """
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be positive, got {max_grad_norm!r}; leave it out for no limit")
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")


def check_shared(count: int, curvature: str, loss: Loss, given: object) -> None:
    """Check that the step of a batch can be shared by so many processes.

    Parameters
    ----------
    given
        The loss as the user gave it.

    Raises
    ------
    ValueError
        If it needs all samples in one place.
    """
    if count > 1 and curvature == "exact":
        raise ValueError("the exact curvature needs all samples of a batch in one process")
    if count > 1 and loss.of_whole_batch:
        raise ValueError(
            f"{given} weighs a sample by the others of its batch, and a process has its share only: give a loss of "
            "ocpkit_nn.layers.losses, CrossEntropy for one"
        )


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


def renamed(group: dict[str, Any], *, warn: bool = False) -> dict[str, Any]:
    """Return the options of a group by today's names; `warn` where a program, not a file, gives them."""
    if not RENAMED.keys() & group.keys():
        return group
    if warn:
        warnings.warn(RENAMED_INTERVAL, DeprecationWarning, stacklevel=3)
    return {RENAMED.get(name, name): value for name, value in group.items()}


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
    if group["eigenbasis_interval"] < 1:
        raise ValueError(f"eigenbasis_interval must be at least 1, got {group['eigenbasis_interval']!r}")

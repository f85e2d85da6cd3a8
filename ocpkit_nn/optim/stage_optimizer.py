"""Base class of the optimizers of networks in stages, with the contract of `torch.optim.Optimizer`.

The network is read anew where it has changed since the last step: parameters frozen or freed, modules, hooks or
parametrizations added or removed. A parameter moves if it requires a gradient and is in a group.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cached_property, wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ocpkit_nn.layers.stages import Stage, as_stages
from ocpkit_nn.layers.structure import Structure, blocks_of, parameters_of
from ocpkit_nn.optim.groups import check_known, group_of_each, ids_of, with_rest

Arguments = ParamSpec("Arguments")


class StageOptimizer(torch.optim.Optimizer):
    """An optimizer of a network that is cut into stages, first in `_attach`, then whenever the network has changed.

    Attributes
    ----------
    model
        The network, or its blocks.
    unclaimed
        Parameters that were frozen when the optimizer was made and that no group names: once they are freed they train
        with the rest, or in the group that `add_param_group` makes for them.
    """

    model: nn.Module | list[nn.Module]
    unclaimed: list[nn.Parameter]
    _structure: Structure | None = None
    _members: list[list[int]]  # of the groups, when they were last looked at

    def _attach(
        self, model: nn.Module | Iterable[nn.Module], groups: Iterable[dict[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """Cut a network for the first time; return the groups of its parameters, with that of the rest."""
        self.model = blocks_of(model)
        self._make_stages()
        named = list(groups)
        complete = with_rest(named, parameters_of(self.model))
        rest = complete[len(named) :]
        self.unclaimed = [p for group in rest for p in group["params"] if not p.requires_grad]
        return complete

    @cached_property
    def preparation(self) -> list[nn.Module]:
        """Modules that prepare x_0."""
        return self._make_stages()[0]

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages of the last step, or of the network as it was first."""
        return self._make_stages()[1]

    @cached_property
    def _groups(self) -> list[dict[str, Any]]:
        """The options of every stage; copied at every step, since schedulers change them for the next."""
        return [self.param_groups[index] for index in group_of_each(self.stages, self.param_groups)]

    def _make_stages(self) -> tuple[list[nn.Module], list[Stage]]:
        preparation, stages = as_stages(self.model)
        stages = self._prepare_stages(vars(self).get("stages", []), stages)
        self._structure, self._members = Structure(self.model), []
        self.preparation, self.stages = preparation, stages
        return preparation, stages

    def _prepare_stages(self, before: list[Stage], after: list[Stage]) -> list[Stage]:
        """Return the new stages as this optimizer uses them, with what it remembers of those before."""
        return after

    def _begin_step(self) -> None:
        """Begin a step: look at the network, and read the options of every stage."""
        if self._structure is None or self._structure.has_changed():
            self._make_stages()
        members = [[*map(id, group["params"])] for group in self.param_groups]
        if members != self._members:
            self._group_of_each, self._members = group_of_each(self.stages, self.param_groups), members
        self._options = [group.copy() for group in self.param_groups]
        for own in self._options:
            if isinstance(own.get("lr"), Tensor):  # as torch allows
                own["lr"] = float(own["lr"])
        self._groups = [self._options[index] for index in self._group_of_each]

    def _prepared(self, inputs: Tensor) -> Tensor:
        """Return x_0 (B, …) of a batch."""
        x = inputs
        for module in self.preparation:
            x = module(x)
        return x

    def _differentiable_trajectory(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return X_0 … X_{T-1}, which require gradients where they can, and f_t(X_t) with autograd's graph of each."""
        with torch.no_grad():
            x = self._prepared(inputs)
        states, outputs = list[Tensor](), list[Tensor]()
        for stage in self.stages:
            states.append(x.detach().requires_grad_(x.is_floating_point()))  # tokens have no co-state
            outputs.append(stage.differentiable(states[-1]))
            x = outputs[-1]
        return states, outputs

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Give parameters of the model that are in no group yet, or that were frozen from the start, one of their own.

        Raises
        ------
        ValueError
            If some are not the model's, or in another group already.
        """
        params = param_group["params"]
        if not isinstance(params, (Tensor, set)):  # torch refuses sets in its own words
            param_group["params"] = params = list(params)
        new = ids_of([params] if isinstance(params, Tensor) else params)
        check_known(new, parameters_of(self.model))
        again = new & {id(p) for group in self.param_groups for p in group["params"]}
        if again <= {id(p) for p in self.unclaimed}:
            for group in self.param_groups if again else []:
                group["params"] = [p for p in group["params"] if id(p) not in again]
            self.unclaimed = [p for p in self.unclaimed if id(p) not in again]
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved, in tensors of this optimizer's own."""
        super().load_state_dict(copy.deepcopy(state_dict))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: not the stages, nor what a scheduler has put around `step`."""
        made = ("stages", "preparation", "step")
        return {name: value for name, value in vars(self).items() if not name.startswith("_") and name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._structure = None
        for name in ("stages", "preparation", "_groups"):  # made at first access: the model may not be complete yet
            vars(self).pop(name, None)


def hamiltonian(costate: Tensor, output: Tensor) -> Tensor:
    """Return H = p_{t+1}ᵀ f_t(x_t, u_t) of every sample, (B,)."""
    return (costate * output).flatten(1).sum(1)


def changes_weights(step: Callable[Arguments, float]) -> Callable[Arguments, float]:
    """Let a step that changes weights see no copies of them: autocast's in low precision, cached parametrizations."""

    @wraps(step)
    def uncached(*args: Arguments.args, **kwargs: Arguments.kwargs) -> float:
        casts, parametrized = torch.is_autocast_cache_enabled(), parametrize._cache_enabled
        torch.set_autocast_cache_enabled(False)
        parametrize._cache_enabled = 0
        try:
            return step(*args, **kwargs)
        finally:
            torch.set_autocast_cache_enabled(casts)
            torch.clear_autocast_cache()
            parametrize._cache_enabled = parametrized
            parametrize._cache.clear()

    return uncached

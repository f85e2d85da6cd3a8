"""Structure of a network, on which its partition into stages depends, and detection of its changes.

A module may be differentiated by formulas of our own only where `module(x)` is no more than its class' forward.
Hooks, parametrizations, subclasses and a `forward` of the instance's own all change what `module(x)` is; they, the
modules, their parameters and which of these are frozen can change between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter, is_
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FREE_AND_HOOKED = attrgetter("requires_grad", "_backward_hooks")
_SETTINGS = ("p", "inplace", "stride", "padding", "dilation", "groups", "padding_mode")
"""Attributes that the cut reads: of dropout, of activations, of convolutions."""
_OF_TORCH: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward
    for kind in (
        *(nn.Sequential, nn.ModuleList, nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Tanh, nn.Sigmoid, nn.ReLU),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    )
}


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether `module(x)` is the forward of one of these classes of torch's and nothing else."""
    return type(module) in kinds and calls_only(module, type(module))


def calls_only(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `module(x)` runs this class' forward, perhaps inherited, without hooks."""
    return type(module).forward is _OF_TORCH[kind] and is_bare(module)


def is_bare(module: nn.Module) -> bool:
    """Whether `module(x)` runs its class' forward and nothing else: no hooks, and no forward of the instance's own."""
    own = vars(module)
    return (
        type(module).__call__ is nn.Module.__call__
        and "forward" not in own
        and not any(own[name] for name in _HOOKS)
        and not torch_module._has_any_global_hook()
    )


def check_no_backward_hooks(model: nn.Module | Iterable[nn.Module]) -> None:
    """Check that there are no hooks that only torch's `backward` runs.

    Raises
    ------
    ValueError
        Naming the module or parameter that has some.
    """
    advice = "would never run, as gradients here are no results of torch's backward(); remove them"
    if torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks:
        raise ValueError(f"backward hooks for all modules {advice}")
    for index, block in enumerate([model] if isinstance(model, nn.Module) else model):
        prefix = "" if isinstance(model, nn.Module) else f"{index}."
        for name, module in block.named_modules():
            if module._backward_hooks or module._backward_pre_hooks:
                raise ValueError(f"backward hooks of {prefix}{name} ({type(module).__name__}) {advice}")
        for name, parameter in block.named_parameters():
            if parameter.requires_grad and parameter._backward_hooks:
                raise ValueError(f"hooks on the gradient of {prefix}{name} {advice}")


def blocks_of(model: nn.Module | Iterable[nn.Module]) -> nn.Module | list[nn.Module]:
    """Return a network in a form that can be read more than once."""
    return model if isinstance(model, nn.Module) else list(model)


def parameters_of(model: nn.Module | Iterable[nn.Module]) -> list[nn.Parameter]:
    """Return all parameters of a network, frozen ones too, each once and in order."""
    blocks = [model] if isinstance(model, nn.Module) else model
    return list({id(p): p for block in blocks if isinstance(block, nn.Module) for p in block.parameters()}.values())


class Structure:
    """Snapshot of all that decides how a network is cut into stages.

    Parameters
    ----------
    model
        A network or its blocks.
    """

    def __init__(self, model: nn.Module | Sequence[nn.Module]) -> None:
        blocks = [model] if isinstance(model, nn.Module) else model
        modules = list({id(m): m for block in blocks for m in block.modules()}.values())
        owns = [vars(module) for module in modules]
        self._modules, self._owns = modules, owns
        self._kinds: list[type[nn.Module]] = list(set(map(type, modules)))
        self._homes = [own[name] for own in owns for name in ("_parameters", "_modules")]
        places = [(home, key) for home in self._homes for key in home]
        self._places = [home for home, _ in places], [key for _, key in places]
        self._parameters = [p for own in owns for p in own["_parameters"].values() if p is not None]
        self._hooks = [own[name] for own in owns for name in _HOOKS]
        self._settings = [
            (own, name)
            for own in owns
            for name in _SETTINGS
            if isinstance(own.get(name), (bool, int, float, str, tuple))
        ]
        self._inhabitants = [home[key] for home, key in places]
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether the network would perhaps be cut differently now."""
        inhabitants = map(dict.get, *self._places)
        return not all(map(is_, inhabitants, self._inhabitants)) or self._look() != self._seen

    def _look(self) -> list[Any]:
        """Return the quantities to compare; a few microseconds for each step, so by loops that run in C."""
        return [
            [*map(type, self._modules)],
            [kind.forward for kind in self._kinds],
            [*map(len, self._homes)],
            [*map(_FREE_AND_HOOKED, self._parameters)],
            [*map(dict.__contains__, self._owns, repeat("forward"))],
            [own[name] for own, name in self._settings],
            torch_module._has_any_global_hook(),
            any(self._hooks) and [*map(len, self._hooks)],
        ]

"""Options of DDPNOpt that a model leaves without effect: said once, with what is lost and how to keep it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from ocpkit_nn.layers.layers import Layer


class TrainingWarning(UserWarning):
    """An option of an optimizer, or its speed, is lost on this model; the step itself is right."""


_FACTORED = (nn.Linear, nn.Conv1d, nn.Conv2d)
_READ_BY = {"momentum": ("identity", "diagonal"), "decay": ("diagonal", "kronecker", "ekfac")}


def warn_of_unread_options(curvature: str, momentum: float, decay: float | None) -> None:
    """Warn once of averages that the curvature has not."""
    named = [name for name, value in (("momentum", momentum or None), ("decay", decay)) if value is not None]
    for name in (name for name in named if curvature not in _READ_BY[name]):
        warnings.warn(
            f"{name} has no effect with curvature={curvature!r}; it is of {' and '.join(map(repr, _READ_BY[name]))}",
            TrainingWarning,
            stacklevel=3,
        )


def lost_options(layers: Sequence[Layer], curvature: str, feedback: str) -> str:
    """Say which options are lost where no layer is there for Kronecker factors or for feedback to come from."""
    lost, hiding = [], list(layers)
    if curvature in ("kronecker", "ekfac"):
        hiding = [layer for layer in layers if not layer.factored and _has_matrix(layer)]
        if hiding:
            names = ", ".join(layer.name for layer in hiding)
            lost.append(
                f"curvature={curvature!r} is the diagonal of sampled squares in {names}: there are Kronecker factors "
                "of nn.Linear, nn.Conv1d and nn.Conv2d that are what torch makes them, without hooks, parametrizations "
                "or a forward of their own"
            )
    if feedback != "none" and len(layers) == 1 and len(_inner(layers[0].module)) > 1:
        lost.append(
            f"feedback={feedback!r} changes nothing: {layers[0].name} is the only stage, and nothing precedes it"
        )
    return f"{'; '.join(lost)}. {_way_out(hiding)}" if lost else ""


def _has_matrix(layer: Layer) -> bool:
    """Whether there is more than scales and shifts, whose curvature is a diagonal anyway; not known of lazy layers."""
    lazy = any(is_lazy(p) for p in layer.parameters)  # type: ignore[no-untyped-call]
    return not lazy and any(parameter.ndim > 1 for parameter in layer.parameters)


def _inner(module: nn.Module) -> list[nn.Module]:
    """Return the modules inside that have trainable parameters of their own, parametrized ones included."""
    lists = [each for each in module.modules() if isinstance(each, ParametrizationList)]
    hidden = {id(inner) for each in lists for inner in each.modules()}
    return [
        each
        for each in module.modules()
        if id(each) not in hidden
        and (is_parametrized(each) or any(p.requires_grad for p in each.parameters(recurse=False)))
    ]


def _way_out(hiding: Sequence[Layer]) -> str:
    """Say how the layers that stages hide become stages."""
    for layer in hiding:
        mine = {id(p) for p in layer.parameters}
        for path, inner in layer.module.named_modules():
            chain = path and isinstance(inner, (nn.Sequential, nn.ModuleList)) and len(inner) > 1
            if chain and mine <= {id(p) for p in inner.parameters()}:
                return f"To keep it give the optimizer the layers inside {layer.name}: its {path!r} is a chain of them"
    names = sorted({type(m).__name__ for layer in hiding for m in _inner(layer.module) if m is not layer.module})
    if names:
        return f"To keep it give the layers inside ({', '.join(names)}) as a plain nn.Sequential or a list of blocks"
    if any(isinstance(layer.module, _FACTORED) for layer in hiding):
        return "To keep it remove hooks and parametrizations, and put what a subclass adds into modules before or after"
    return "The other stages keep it; curvature='diagonal' and 'adam' are for layers of any kind"

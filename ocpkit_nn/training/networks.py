"""The networks of the experiments (Liu, Chen & Theodorou 2021, Sec. 5.1 and A.6.1), as plain torch models."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from ocpkit.errors import unknown_name
from ocpkit_nn.data import Dataset
from ocpkit_nn.training.architectures import ARCHITECTURES

ActivationName = Literal["tanh", "relu", "sigmoid", "identity"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


@dataclass(frozen=True)
class Setting:
    """The paper's choices for one data set; within its ranges (width 10–32, batch 8–32) they are ours."""

    activation: ActivationName = "relu"
    output: ActivationName = "identity"
    width: int = 32
    batch_size: int = 32


FCN_SETTINGS: dict[str, Setting] = {
    "wine": Setting(activation="tanh", output="sigmoid", width=10, batch_size=8),
    "digits": Setting(activation="tanh", width=24, batch_size=8),
    "mnist": Setting(),
    "fashion-mnist": Setting(),
}
CNN_SETTING = Setting(batch_size=128)


def setting(spec: str, dataset_name: str) -> Setting:
    """Return the paper's choices for a network on a data set; those of MNIST where the paper has none."""
    return CNN_SETTING if spec == "cnn" else FCN_SETTINGS.get(dataset_name, Setting())


def fcn(
    inputs: int,
    classes: int,
    *,
    width: int = 32,
    depth: int = 5,
    activation: ActivationName = "relu",
    output: ActivationName = "identity",
) -> nn.Sequential:
    """Return `depth` Linear layers with an activation after each, (B, inputs) → (B, classes).

    Parameters
    ----------
    inputs, classes : int
        Numbers of inputs and outputs.
    width : int
        Outputs of the hidden layers.
    depth : int
        Linear layers, at least 1.
    activation, output : {"tanh", "relu", "sigmoid", "identity"}
        After the hidden layers and after the last; no module stands for the identity.

    Raises
    ------
    ValueError
        If a size is below 1 or an activation unknown.
    """
    if min(inputs, classes, width, depth) < 1:
        raise ValueError(f"inputs, classes, width, depth must be >= 1, got {inputs}, {classes}, {width}, {depth}")
    sizes = [inputs, *[width] * (depth - 1), classes]
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [
            nn.Linear(sizes[layer], sizes[layer + 1]),
            *_activation(activation if layer < depth - 1 else output),
        ]
    return nn.Sequential(*layers)


def cnn(
    channels: int,
    image_size: int | tuple[int, int],
    classes: int,
    *,
    width: int = 32,
    strides: tuple[int, int, int, int] = (2, 1, 2, 1),
) -> nn.Sequential:
    """Return 4 convolutions 3 × 3 of 32 channels and 2 Linear layers, (B, C, H, W) → (B, classes), with ReLU.

    The paper names neither strides nor pooling. Here the strides halve the image twice, padding 1 keeps its
    size otherwise, and there is no pooling: a layer is then a convolution and an activation, nothing else.

    Parameters
    ----------
    channels : int
        Of the images.
    image_size : int or (int, int)
        Their height and width.
    classes : int
        Number of outputs.
    width : int
        Outputs of the first Linear layer.
    strides : (int, int, int, int)
        Of the convolutions; (1, 2, 1, 2) has as many parameters and takes twice the time.

    Raises
    ------
    ValueError
        If a size is below 1.
    """
    height, breadth = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(channels, height, breadth, classes, width, *strides) < 1:
        raise ValueError(f"sizes must be >= 1, got {channels=}, {image_size=}, {classes=}, {width=}, {strides=}")
    layers: list[nn.Module] = []
    for stride in strides:
        layers += [nn.Conv2d(channels, 32, kernel_size=3, stride=stride, padding=1), nn.ReLU()]
        channels, height, breadth = 32, math.ceil(height / stride), math.ceil(breadth / stride)
    hidden = nn.Linear(32 * height * breadth, width)
    return nn.Sequential(*layers, nn.Flatten(), hidden, nn.ReLU(), nn.Linear(width, classes))


def build(spec: str, dataset: Dataset) -> nn.Module:
    """Return a network for a data set, its weights drawn by torch's global generator.

    Parameters
    ----------
    spec : str
        "fcn" or "cnn", with the paper's choices for this data set (an "fcn" flattens images first); "residual" or
        "transformer", small networks for images (see `ocpkit_nn.training.architectures`); or
        "path/to/file.py:function" for a `function(dataset) -> nn.Module` of one's own; its file is run.
    dataset : Dataset

    Raises
    ------
    ValueError
        If the spec is unknown, another than "fcn" is asked for data that are no images, or the file has no such
        function.
    FileNotFoundError
        If the file does not exist.
    TypeError
        If the function returns something else.
    """
    shape = dataset.input_shape
    if spec == "fcn":
        chosen = setting(spec, dataset.name)
        network = fcn(
            math.prod(shape),
            dataset.classes,
            width=chosen.width,
            activation=chosen.activation,
            output=chosen.output,
        )
        return network if len(shape) == 1 else nn.Sequential(nn.Flatten(), *network)
    if spec == "cnn":
        if len(shape) != 3:
            raise ValueError(f'"cnn" needs images (N, C, H, W); samples of {dataset.name} have shape {shape}')
        return cnn(shape[0], (shape[1], shape[2]), dataset.classes)
    if spec in ARCHITECTURES:
        return ARCHITECTURES[spec](dataset)
    file, _, function = spec.rpartition(":")
    if not file.endswith(".py"):
        raise unknown_name("network", spec, ("fcn", "cnn", *ARCHITECTURES, "path/to/file.py:function"))
    network_or_other = _function(Path(file).expanduser(), function)(dataset)
    if not isinstance(network_or_other, nn.Module):
        raise TypeError(f"{spec} must return a torch.nn.Module, got {type(network_or_other).__name__}")
    return network_or_other


def _activation(name: str) -> list[nn.Module]:
    if name not in _ACTIVATIONS:
        raise unknown_name("activation", name, _ACTIVATIONS)
    return [] if name == "identity" else [_ACTIVATIONS[name]()]


def _function(file: Path, name: str) -> Callable[[Dataset], object]:
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[Dataset], object] | None = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{file} has no function {name!r}")
    return function

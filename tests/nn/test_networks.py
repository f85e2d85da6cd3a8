"""The paper's networks: their layers, what they map to what, and a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ocpkit_nn.data import Dataset, gaussian_clusters, load
from ocpkit_nn.training.networks import build, cnn, fcn, setting


def kinds(network: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in network.children()]


def images(height: int = 8, width: int = 8) -> Dataset:
    inputs, targets = torch.randn(4, 3, height, width), torch.tensor([0, 1, 0, 1])
    return Dataset("own", inputs, targets, inputs, targets, classes=2)


@settings(max_examples=20, deadline=None)
@given(inputs=st.integers(1, 9), classes=st.integers(1, 9), width=st.integers(1, 9), depth=st.integers(1, 9))
def test_fcn_has_depth_linear_layers_of_the_sizes_asked(inputs: int, classes: int, width: int, depth: int) -> None:
    network = fcn(inputs, classes, width=width, depth=depth)
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    sizes = [linear[0].in_features, *(layer.out_features for layer in linear)]
    assert sizes == [inputs, *[width] * (depth - 1), classes]
    assert network(torch.randn(2, inputs)).shape == (2, classes)


def test_fcn_activations_stand_where_they_should() -> None:
    network = fcn(4, 2, depth=3, activation="tanh", output="sigmoid")
    assert kinds(network) == ["Linear", "Tanh", "Linear", "Tanh", "Linear", "Sigmoid"]
    assert kinds(fcn(4, 2, depth=2)) == ["Linear", "ReLU", "Linear"]


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    strides=st.tuples(*[st.integers(1, 3)] * 4),
)
def test_cnn_maps_images_of_any_size(
    channels: int, height: int, width: int, strides: tuple[int, int, int, int]
) -> None:
    network = cnn(channels, (height, width), 5, strides=strides)
    assert network(torch.randn(2, channels, height, width)).shape == (2, 5)


def test_cnn_is_the_papers() -> None:
    network = cnn(3, 32, 10)
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert kinds(network) == ["Conv2d", "ReLU"] * 4 + ["Flatten", "Linear", "ReLU", "Linear"]
    assert {(layer.out_channels, layer.kernel_size) for layer in convolutions} == {(32, (3, 3))}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wine", ["Linear", "Tanh"] * 4 + ["Linear", "Sigmoid"]),
        ("digits", ["Flatten"] + ["Linear", "Tanh"] * 4 + ["Linear"]),
        ("clusters:3", ["Linear", "ReLU"] * 4 + ["Linear"]),
    ],
)
def test_built_fcn_is_the_papers_and_takes_the_data_as_they_are(name: str, expected: list[str]) -> None:
    dataset = load(name)
    network = build("fcn", dataset)
    assert kinds(network) == expected
    assert network(dataset.train_inputs[:2]).shape == (2, dataset.classes)


def test_built_cnn_takes_images_that_are_not_square() -> None:
    dataset = images(8, 12)
    assert build("cnn", dataset)(dataset.train_inputs).shape == (4, 2)


@pytest.mark.parametrize("spec", ["residual", "transformer"])
def test_other_architectures_take_images_and_refuse_tables(spec: str) -> None:
    dataset = images(8, 12)
    assert build(spec, dataset)(dataset.train_inputs).shape == (4, 2)
    with pytest.raises(ValueError, match=r"needs images .* clusters:3 are \(30,\)"):
        build(spec, gaussian_clusters(3))


def test_weights_follow_torchs_seed() -> None:
    dataset = images()
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(nn.utils.parameters_to_vector(build("cnn", dataset).parameters()))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


@pytest.mark.parametrize("name", ["wine", "digits", "mnist", "fashion-mnist", "something else"])
def test_settings_are_in_the_papers_ranges(name: str) -> None:
    chosen = setting("fcn", name)
    assert 10 <= chosen.width <= 32
    assert 8 <= chosen.batch_size <= 32
    assert (chosen.activation == "tanh") == (name in ("wine", "digits"))
    assert (chosen.output == "sigmoid") == (name == "wine")
    assert setting("cnn", name).batch_size == 128


OWN = """
from torch import nn

def small(dataset):
    return nn.Sequential(nn.Flatten(), nn.Linear(dataset.train_inputs[0].numel(), dataset.classes))

def wrong(dataset):
    return "a network"

number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def test_a_users_network_is_built_from_its_file(own: Path) -> None:
    dataset = images()
    assert build(f"{own}:small", dataset)(dataset.train_inputs).shape == (4, 2)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("wrong", TypeError, "must return a torch.nn.Module, got str"),
        ("number", ValueError, "has no function 'number'"),
        ("absent", ValueError, "has no function 'absent'"),
    ],
)
def test_wrong_functions_of_a_user_are_refused(own: Path, function: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(f"{own}:{function}", images())


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.py"):
        build("absent.py:small", images())


@pytest.mark.parametrize("spec", ["fnc", "ccnn", "own.py", ""])
def test_unknown_specs_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="unknown network"):
        build(spec, images())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fcn(4, 2, depth=0), "must be >= 1, got 4, 2, 32, 0"),
        (lambda: fcn(4, 2, activation="tanhh"), "did you mean 'tanh'"),  # type: ignore[arg-type]
        (lambda: cnn(0, 8, 2), "channels=0"),
        (lambda: cnn(1, 8, 2, strides=(1, 1, 0, 1)), "must be >= 1"),
        (lambda: build("cnn", gaussian_clusters(3)), r"needs images .* clusters:3 have shape \(30,\)"),
    ],
)
def test_wrong_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

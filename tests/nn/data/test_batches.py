"""Data without files, splits, standardizing and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ocpkit_nn.data import batches, gaussian_clusters, load
from ocpkit_nn.data.dataset import Arrays, standardized

few_examples = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("wine", (142, 13), (36, 13), 3),
        ("digits", (1437, 1, 8, 8), (360, 1, 8, 8), 10),
        ("clusters", (800, 30), (200, 30), 5),
        ("clusters:12", (1920, 30), (480, 30), 12),
    ],
)
def test_data_without_files(name: str, train: tuple[int, ...], test: tuple[int, ...], classes: int) -> None:
    dataset = load(name)
    assert dataset.train_inputs.shape == train
    assert dataset.test_inputs.shape == test
    assert dataset.classes == classes
    shares = [targets.bincount() / len(targets) for targets in (dataset.train_targets, dataset.test_targets)]
    assert_close(shares[0], shares[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["wine", "digits", "clusters:3"])
def test_splits_follow_the_seed(name: str) -> None:
    first, same, other = load(name), load(name, seed=0), load(name, seed=1)
    assert torch.equal(first.train_inputs, same.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)


def test_split_keeps_every_sample_once() -> None:
    from sklearn.datasets import load_wine

    dataset = load("wine")
    targets = torch.cat([dataset.train_targets, dataset.test_targets])
    assert torch.equal(targets.bincount(), torch.from_numpy(np.bincount(load_wine().target)))
    inputs = torch.cat([dataset.train_inputs, dataset.test_inputs])
    assert len(torch.unique(inputs, dim=0)) == len(np.unique(load_wine().data, axis=0))


def test_clusters_without_spread_are_points() -> None:
    dataset = gaussian_clusters(4, dimension=2, samples_per_cluster=10, spread=0.0)
    assert len(torch.unique(dataset.train_inputs, dim=0)) == 4


@pytest.mark.parametrize("options", [{"clusters": 1}, {"dimension": 0}, {"samples_per_cluster": 4}, {"spread": -1}])
def test_wrong_cluster_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need clusters >= 2"):
        gaussian_clusters(**options)


@few_examples
@given(
    features=st.integers(1, 4),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_standardizing_uses_the_training_set_only(features: int, shift: float, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    train, test = (shift + scale * random.standard_normal((n, features)) for n in (20, 7))
    targets = np.arange(20) % 2
    dataset = standardized("own", Arrays(train, targets, test, targets[:7]))
    assert_close(dataset.train_inputs.mean(0), torch.zeros(features), atol=1e-5, rtol=0)
    assert_close(dataset.train_inputs.std(0, correction=0), torch.ones(features), atol=1e-5, rtol=0)
    expected = torch.from_numpy((test - train.mean(0)) / train.std(0)).float()
    assert_close(dataset.test_inputs, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_constant_features_are_centred(constant: float) -> None:
    inputs, targets = np.full((8, 1), constant), np.arange(8) % 2
    dataset = standardized("own", Arrays(inputs, targets, inputs, targets))
    assert_close(dataset.train_inputs, torch.zeros(8, 1), atol=1e-5, rtol=0)


def test_flatten_keeps_values_and_order() -> None:
    dataset = load("digits")
    flat = dataset.flatten()
    assert flat.train_inputs.shape == (1437, 64)
    assert flat.input_shape == (64,)
    assert torch.equal(flat.test_inputs[3].reshape(1, 8, 8), dataset.test_inputs[3])


@few_examples
@given(samples=st.integers(1, 50), batch_size=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_an_epoch_has_every_sample_once_in_the_generators_order(samples: int, batch_size: int, seed: int) -> None:
    inputs = torch.arange(samples).float()[:, None]
    epochs = [
        list(batches(inputs, torch.arange(samples), batch_size, torch.Generator().manual_seed(seed))) for _ in range(2)
    ]
    sizes = [len(x) for x, _ in epochs[0]]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= batch_size
    order = torch.cat([y for _, y in epochs[0]])
    assert order.sort().values.tolist() == list(range(samples))
    assert torch.equal(order, torch.cat([y for _, y in epochs[1]]))
    assert torch.equal(torch.cat([x for x, _ in epochs[0]])[:, 0], order.float())


def test_epochs_of_one_generator_differ() -> None:
    generator, data = torch.Generator().manual_seed(0), torch.arange(100)
    first, second = (torch.cat([y for _, y in batches(data, data, 10, generator)]) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("size", "targets"), [(0, 3), (-1, 3), (2, 4)])
def test_wrong_batches_are_refused_at_once(size: int, targets: int) -> None:
    with pytest.raises(ValueError, match="got"):
        batches(torch.zeros(3, 1), torch.zeros(targets), size, torch.Generator())

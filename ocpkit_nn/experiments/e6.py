"""E6: Fig. 5, 7 and Alg. 4: what does the feedback of a CNN on MNIST respond to?

The leading right-singular vector of a layer's mean gain K_t on images of two digits, found without forming K_t, is the
deviation δx_max of its input that changes the weights most; `project` takes it, and random ones, back to the image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vjp

from ocpkit_nn import CrossEntropy, DDPNOpt, FeedbackGain
from ocpkit_nn.data import Dataset
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.report import FAILS, Page, Picture, Report, Table, panels
from ocpkit_nn.experiments.results import Results, estimate
from ocpkit_nn.experiments.run import Options, Result, Run, common, twin_run

PAIRS = ((8, 3), (7, 1), (4, 9), (5, 6))
OUTPUTS = {"pair": "the outputs of the pair", "all": "all ten outputs"}
IMAGES = 100
DRAWS = 40
PAGE = Page("e6")


def runs(options: Options) -> list[Run]:
    """Return one training of the CNN for each seed; the quick form's is on DIGITS, which needs no files."""
    return [
        twin_run(common("e6", f"cnn:{dataset}", "sgd", options, epochs=1, samples=None), 0.1, seed, "full")
        for dataset in options.datasets or ("digits" if options.quick else "mnist",)
        for seed in options.seed_range
    ]


def train(run: Run) -> Result:
    """Train; then measure every pair at every layer that has feedback."""
    trained: dict[str, nn.Module] = {}
    result = trial.train(run, lambda update, model, stepper: trained.update(model=model))
    if result.diverged:
        return result
    data, network = trial.dataset(replace(run, samples=None)), nn.Sequential(*trained["model"].children())
    generator = torch.Generator().manual_seed(run.seed)
    return replace(result, measures={"pairs": [_pair(run, data, network, pair, generator) for pair in PAIRS]})


def _pair(run: Run, data: Dataset, network: nn.Sequential, pair: tuple[int, int], generator: torch.Generator) -> Any:
    """Record of a pair: two images, the difference of the means, δx_max and correlations by layer."""
    images = [data.train_inputs[data.train_targets == digit][:IMAGES] for digit in pair]
    difference = images[0].mean(0) - images[1].mean(0)
    record: dict[str, Any] = {"digits": pair, "examples": [_pixels(group[0]) for group in images]}
    record["difference"] = _pixels(difference)
    for outputs in OUTPUTS:
        record[outputs] = []
        for name, before, gain in policies(run, network, pair, images, outputs):
            direction = gain.svd(1)[2][0]
            seen = project(before, images[0][0], direction)
            draws = (torch.randn(len(direction), generator=generator) for _ in range(DRAWS))
            random = [correlation(project(before, images[0][0], draw), difference) for draw in draws]
            layer = {"layer": name, "correlation": correlation(seen, difference)}
            layer |= {"random": float(np.mean(random)), "random_95": float(np.quantile(random, 0.95))}
            record[outputs].append(layer | ({"image": _pixels(seen)} if outputs == "pair" else {}))
    return record


def _pixels(image: Tensor) -> list[list[float]]:
    """Mean over the channels, (H, W), scaled to at most 1."""
    flat = image.mean(0)
    return [[round(float(value), 3) for value in row] for row in flat / flat.abs().max().clamp_min(1e-30)]


def correlation(a: Tensor, b: Tensor) -> float:
    """Absolute correlation of two images; 0 where one is constant. The sign of a singular vector means nothing."""
    x, y = a.flatten().double(), b.flatten().double()
    x, y = x - x.mean(), y - y.mean()
    norm = float(x.norm() * y.norm())
    return abs(float(x @ y)) / norm if norm > 0 else 0.0


def policies(
    run: Run, network: nn.Sequential, pair: tuple[int, int], images: Sequence[Tensor], outputs: str
) -> list[tuple[str, list[nn.Module], FeedbackGain]]:
    """Return for every layer with feedback (its name, the modules before it, K_t on the images of the pair).

    The network ends with a Linear layer, of which ``outputs="pair"`` keeps the rows of the two digits.
    """
    inputs, modules, labels = torch.cat(list(images)), list(copy.deepcopy(network)), pair
    if outputs == "pair":
        last, modules[-1] = modules[-1], nn.Linear(modules[-1].in_features, 2)  # type: ignore[arg-type]
        with torch.no_grad():
            for new, old in zip(modules[-1].parameters(), last.parameters()):
                new.copy_(old[list(pair)])
        labels = (0, 1)
    targets = torch.cat([torch.full((len(group),), label) for group, label in zip(images, labels)])
    method = replace(run, optimizer={**run.optimizer, "feedback": "value"}, device=str(inputs.device))
    solver = build(nn.Sequential(*modules).to(inputs.device), CrossEntropy(), method)
    assert isinstance(solver, DDPNOpt)
    solver.step(inputs, targets.to(inputs.device))
    starts = [index for index, module in enumerate(network) if list(module.parameters())]
    return [
        (f"{type(network[start]).__name__} {t + 1}", list(network)[:start], gain)
        for t, (start, gain) in enumerate(zip(starts, solver.policies()))
        if gain is not None
    ]


def report(results: Sequence[Result], folder: Path) -> Report:
    kept = Results(result for result in results if result.measures).by("dataset")
    said = [_verdict(dataset, members) for dataset, members in kept.items()] or [(FAILS, "Every training diverged.")]
    text = " ".join([*(text for _, text in said), PAGE.say("Rule")])
    tables = [_table(members, outputs) for members in kept.values() for outputs in OUTPUTS]
    return PAGE.report((said[0][0], text), tables, [_draw(members[0], folder) for members in kept.values()])


class Seen(NamedTuple):
    """Correlations of a pair at a layer, means over seeds."""

    correlation: float
    random: float
    random_95: float


def _seen(results: Results, outputs: str, pair: int) -> list[Seen]:
    layers = zip(*(result.measures["pairs"][pair][outputs] for result in results))
    return [Seen(*(estimate(one[name] for one in layer).mean for name in Seen._fields)) for layer in layers]


def _verdict(dataset: str, results: Results) -> tuple[str, str]:
    cells = [seen for pair in range(len(PAIRS)) for seen in _seen(results, "pair", pair)]
    above = sum(seen.correlation > seen.random_95 for seen in cells)
    ours, random = (estimate(getattr(seen, name) for seen in cells).mean for name in ("correlation", "random"))
    said = {"data": dataset, "ours": ours, "random": random, "above": above, "cells": len(cells)}
    return PAGE.judged(holds=above == len(cells), partly=2 * above > len(cells), **said)


def _table(results: Results, outputs: str) -> Table:
    rows = []
    for index, (a, b) in enumerate(PAIRS):
        cells = _seen(results, outputs, index)
        rows.append((f"{a} / {b}", *(f"{c.correlation:.2f} ({c.random:.2f}, {c.random_95:.2f})" for c in cells)))
    layers = [layer["layer"] for layer in results[0].measures["pairs"][0][outputs]]
    return PAGE.table("Table", rows, layers, data=results[0].run.dataset, outputs=OUTPUTS[outputs])


def _draw(result: Result, folder: Path) -> Picture:
    pairs = result.measures["pairs"]
    columns = 3 + len(pairs[0]["pair"])
    drawn, axes = panels(1.3 * columns, 1.4 * len(pairs), len(pairs), columns)
    for row, pair in zip(axes, pairs):
        difference = np.array(pair["difference"])
        images = [(f"{digit}", np.array(example)) for digit, example in zip(pair["digits"], pair["examples"])]
        images.append(("difference", difference))
        for layer in pair["pair"]:
            seen = np.array(layer["image"])
            images.append((layer["layer"], seen if float((seen * difference).sum()) >= 0 else -seen))
        for index, (ax, (name, image)) in enumerate(zip(row, images)):
            ax.imshow(image, **({"cmap": "RdBu", "vmin": -1, "vmax": 1} if index > 1 else {"cmap": "gray"}))
            ax.set_title(name, fontsize=7)
            ax.set_axis_off()
    dataset = result.run.dataset
    return PAGE.figure("Figure", drawn, folder / f"responses-{dataset}.png", data=dataset)


def project(modules: Sequence[nn.Module], image: Tensor, direction: Tensor) -> Tensor:
    """Project a direction in the space after `modules` back to the image (Zeiler & Fergus 2014), as Alg. 4 needs it.

    On the way back a convolution and a Linear layer are their transposes, without biases, and ReLU is ReLU again.

    `modules` are the layers between the image (C, H, W) and the activations, and `direction` has as many numbers as
    there are activations. It has two signs and ReLU lets one pass, so its positive and its negative part go back each
    for itself and are subtracted.

    The result is (C, H, W). `ValueError` for a module that has no deconvolution here.
    """
    steps: list[Callable[[Tensor], Tensor]] = []
    x = image[None].detach()
    with torch.no_grad():
        for module in modules:
            x, back = _step(module, x)
            steps.append(back)
        signed = direction.reshape(x.shape).to(x)
        positive, negative = signed.clamp_min(0), (-signed).clamp_min(0)
        for back in reversed(steps):
            positive, negative = back(positive), back(negative)
    return (positive - negative)[0]


def _step(module: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    if isinstance(module, nn.ReLU):
        return F.relu(x), F.relu
    if not isinstance(module, (nn.Conv2d, nn.Linear, nn.Flatten)):
        raise ValueError(f"no deconvolution for {module}; give Conv2d, Linear, ReLU or Flatten")
    after, transpose = vjp(module, x)[:2]
    return after, lambda y: transpose(y)[0]

"""E6: Fig. 5, 7 and Alg. 4: what does the feedback of a CNN on MNIST respond to?

For a pair of digits the backward pass is made on training images of both; the leading right-singular vector of each
layer's mean gain K_t, found without forming K_t, is the deviation δx_max of its input that changes the weights most.
`deconvolution.project` takes it back to the image. There it is compared with the difference of the two digits' mean
images, and so are random directions of the same layer.

The outputs are the two digits' alone ("pair": what tells these two apart), and, for comparison, all ten.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn.data import Dataset
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.deconvolution import project
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import estimate, group
from ocpkit_nn.experiments.twins import QUICK, seeds
from ocpkit_nn.layers.losses import CrossEntropy
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.gains import FeedbackGain

TITLE = "E6: the images that the feedback responds to (Fig. 5, Alg. 4)"
PAIRS = ((8, 3), (7, 1), (4, 9), (5, 6))
OUTPUTS = ("pair", "all")
IMAGES = 100
DRAWS = 40


def runs(options: Options) -> list[Run]:
    """Return one training of the CNN for each seed; the quick form's is on DIGITS, which needs no files."""
    datasets = options.datasets or ("digits" if options.quick else "mnist",)
    return [
        Run(
            item="e6",
            dataset=dataset,
            model="cnn",
            method="ddpnopt",
            baseline="sgd",
            learning_rate=0.1,
            epsilon=0.0,
            seed=seed,
            batch_size=128,
            optimizer={"feedback": "full", "terminal": "empirical"},
            device=options.device,
            **{"epochs": 1, **(QUICK if options.quick else {})},
        )
        for dataset in datasets
        for seed in seeds(options)
    ]


def train(run: Run) -> Result:
    """Train; then measure every pair at every layer that has feedback."""
    trained: list[nn.Module] = []
    result = trial.train(run, lambda update, model, stepper: trained.__setitem__(slice(None), [model]))
    if result.diverged:
        return result
    data, network = trial.dataset(replace(run, samples=None)), nn.Sequential(*trained[0].children())
    generator = torch.Generator().manual_seed(run.seed)
    return replace(result, measures={"pairs": [_pair(run, data, network, pair, generator) for pair in PAIRS]})


def _pair(run: Run, data: Dataset, network: nn.Sequential, pair: tuple[int, int], generator: torch.Generator) -> Any:
    """What is recorded of a pair: two images, the difference of the means, δx_max and correlations by layer."""
    images = [data.train_inputs[data.train_targets == digit][:IMAGES] for digit in pair]
    difference = images[0].mean(0) - images[1].mean(0)
    record: dict[str, Any] = {"digits": pair, "examples": [_pixels(group[0]) for group in images]}
    record["difference"] = _pixels(difference)
    for outputs in OUTPUTS:
        record[outputs] = []
        for name, before, gain in policies(run, network, pair, images, outputs):
            direction = gain.svd(1)[2][0]
            seen = project(before, images[0][0], direction)
            random = [
                correlation(project(before, images[0][0], torch.randn(len(direction), generator=generator)), difference)
                for _ in range(DRAWS)
            ]
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
    inputs, modules = torch.cat(list(images)), list(copy.deepcopy(network))
    labels = pair
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
    """Compare the correlations with those of random directions; the verdict is that of the first data set."""
    kept = group((result for result in results if result.measures), lambda result: result.run.dataset)
    judged = [_verdict(dataset, members) for dataset, members in kept.items()] or [(FAILS, "Every training diverged.")]
    tables = tuple(_table(members, outputs) for members in kept.values() for outputs in OUTPUTS)
    pictures = tuple(_draw(members[0], folder) for members in kept.values())
    return Report(TITLE, judged[0][0], " ".join([*(text for _, text in judged), RULE]), tables, pictures, NOTES)


RULE = "Rule: holds if it is so in all, partly in more than half."


def _verdict(dataset: str, results: Sequence[Result]) -> tuple[str, str]:
    layers = len(results[0].measures["pairs"][0]["pair"])
    cells = [_cell(results, "pair", pair, layer) for pair in range(len(PAIRS)) for layer in range(layers)]
    above = sum(cell.above for cell in cells)
    ours, random = (estimate(getattr(cell, name) for cell in cells).mean for name in ("mean", "random"))
    return HOLDS if above == len(cells) else PARTLY if 2 * above > len(cells) else FAILS, (
        f"On {dataset}, projected back to the image, the leading right-singular vector of K_t correlates (in absolute "
        f"value) with the difference of the two digits' mean images by {ours:.2f} on average over pairs and layers, a "
        f"random direction by {random:.2f}; in {above} of {len(cells)} (pair, layer) it is above the 95th percentile "
        "of the random ones in the mean over the seeds."
    )


NOTES = (
    "The paper decomposes K_t of one image; here it is the mean gain of 100 training images of each digit, with those "
    "two outputs alone. With all ten outputs (second table) δx_max also tells the pair from third digits.",
    "The network halves the image by strides, so there are no switches to unpool with. Its SGD twin has M = I.",
)


@dataclass(frozen=True)
class Cell:
    """Correlations of a pair at a layer, means over seeds."""

    mean: float
    random: float
    random_95: float

    @property
    def above(self) -> bool:
        return self.mean > self.random_95


def _cell(results: Sequence[Result], outputs: str, pair: int, layer: int) -> Cell:
    found = [result.measures["pairs"][pair][outputs][layer] for result in results]
    return Cell(*(estimate(one[name] for one in found).mean for name in ("correlation", "random", "random_95")))


def _table(results: Sequence[Result], outputs: str) -> Table:
    names = [layer["layer"] for layer in results[0].measures["pairs"][0][outputs]]
    rows = []
    for index, (a, b) in enumerate(PAIRS):
        cells = [_cell(results, outputs, index, layer) for layer in range(len(names))]
        rows.append((f"{a} / {b}", *(f"{c.mean:.2f} ({c.random:.2f}, {c.random_95:.2f})" for c in cells)))
    which = "the outputs of the pair" if outputs == "pair" else "all ten outputs"
    caption = (
        f"{results[0].run.dataset}: correlation of δx_max with the difference of the mean images, {which} "
        "(in brackets: random directions, mean and 95th percentile), by the layer whose K_t it is of"
    )
    return Table(caption, ("digits", *names), tuple(rows))


def _draw(result: Result, folder: Path) -> Picture:
    """A row for each pair: an image of each digit, the difference of the means, δx_max of every layer."""
    pairs = result.measures["pairs"]
    columns = 3 + len(pairs[0]["pair"])
    drawn = figure(1.3 * columns, 1.4 * len(pairs))
    axes = drawn.subplots(len(pairs), columns, squeeze=False)
    for row, pair in zip(axes, pairs):
        difference = np.array(pair["difference"])
        images = [(f"{digit}", np.array(example)) for digit, example in zip(pair["digits"], pair["examples"])]
        images.append(("difference", difference))
        for layer in pair["pair"]:
            seen = np.array(layer["image"])
            sign = 1.0 if float((seen * difference).sum()) >= 0 else -1.0
            images.append((layer["layer"], sign * seen))
        for index, (ax, (name, image)) in enumerate(zip(row, images)):
            signed = {"cmap": "RdBu", "vmin": -1, "vmax": 1} if index > 1 else {"cmap": "gray"}
            ax.imshow(image, **signed)
            ax.set_title(name, fontsize=7)
            ax.set_axis_off()
    caption = (
        f"{result.run.dataset}: an image of each digit, the difference of their means, and δx_max of every layer's "
        "feedback in the image (blue: more of it in the first digit, red: in the second, by choice of the sign)"
    )
    return save(drawn, folder / f"responses-{result.run.dataset}.png", caption)

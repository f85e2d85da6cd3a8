"""Runs that several items share: a baseline, its DDPNOpt twins and a practitioner's rivals, alike but for that."""

from __future__ import annotations

from typing import Any

from ocpkit_nn.experiments.run import QUICK_SAMPLES, Options, Run, network_and_data
from ocpkit_nn.training.networks import setting

EPOCHS = {"digits": 8, "wine": 30}
CNN: dict[str, Any] = {"epochs": 3, "samples": 12800}
"""Of every CNN: 300 updates, since a sweep over rates, ε and seeds trains hundreds of them."""
QUICK: dict[str, Any] = {"epochs": 1, "samples": QUICK_SAMPLES}
QUICK_SEEDS = 2

RIVALS: dict[str, tuple[str, ...]] = {
    "sgd": ("clip", "clip-samples", "warm-up", "normalised", "implicit"),
    "rmsprop": ("clip", "clip-samples", "warm-up"),
    "adam": ("clip", "clip-samples", "warm-up"),
    "ekfac": ("clip", "warm-up"),
}
"""What is compared with the twins of a baseline. Normalising is nothing to RMSprop and Adam, which rescale anyway."""


def seeds(options: Options) -> range:
    """Return the seeds of an item; the quick form has at most two."""
    return range(min(options.seeds, QUICK_SEEDS) if options.quick else options.seeds)


def common(item: str, name: str, baseline: str, options: Options) -> dict[str, Any]:
    """Return what the runs of a baseline, its twins and its rivals have in common; `name` as in `Options.datasets`."""
    model, dataset = network_and_data(name)
    return {
        "item": item,
        "dataset": dataset,
        "model": model,
        "baseline": baseline,
        "epochs": EPOCHS.get(dataset, 2),
        "batch_size": setting(model, dataset).batch_size,
        "device": options.device,
        **(QUICK if options.quick else CNN if model == "cnn" else {}),
    }


def baseline_run(shared: dict[str, Any], rate: float, seed: int) -> Run:
    """Return the baseline itself."""
    return Run(**shared, method=shared["baseline"], learning_rate=rate, seed=seed)


def twin_run(
    shared: dict[str, Any],
    rate: float,
    seed: int,
    feedback: str,
    *,
    epsilon: float = 0.0,
    terminal: str = "empirical",
) -> Run:
    """Return a twin: ``feedback="none"`` is the baseline trained by DDPNOpt, the two other values add V_xx."""
    if feedback == "none":
        return Run(**shared, method="ddpnopt", learning_rate=rate, seed=seed, optimizer={"feedback": "none"})
    optimizer = {"feedback": feedback, "terminal": terminal}
    return Run(**shared, method="ddpnopt", learning_rate=rate, epsilon=epsilon, seed=seed, optimizer=optimizer)


def rival_runs(shared: dict[str, Any], rate: float, seed: int) -> list[Run]:
    """Return the rivals of a baseline's twins."""
    return [Run(**shared, method=rival, learning_rate=rate, seed=seed) for rival in RIVALS[shared["baseline"]]]

"""The numbers that the paper reports (Liu, Chen & Theodorou, ICLR 2021), which are in paper.json.

Accuracies in %, losses as printed; all are means over 10 seeds. None: the paper has no number there.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


_NUMBERS = _tuples(json.loads((resources.files(__package__) / "paper.json").read_text(encoding="utf-8")))

TABLE_3_METHODS: tuple[str, ...] = _NUMBERS["table 3, methods"]
TABLE_3: dict[tuple[str, str], tuple[float | None, ...]] = {
    (network, dataset): row for name, row in _NUMBERS["table 3"].items() for network, dataset in [name.split(":")]
}
"""By (network, data set), in the order of `TABLE_3_METHODS`."""
TABLE_4: dict[str, dict[str, str]] = _NUMBERS["table 4"]
"""Cost in width X, depth L and batch B."""
TABLE_5: dict[str, tuple[float, float]] = _NUMBERS["table 5"]
"""Ranges of the learning rate that were searched."""
BEST_RATES: dict[str, float] = _NUMBERS["tables 6 to 8, rates"]
"""Learning rates of Tables 6 to 8: the best of each baseline on DIGITS."""
TABLES_6_TO_8: dict[str, dict[str, tuple[float, float]]] = _NUMBERS["tables 6 to 8"]
"""(training loss, accuracy) at `BEST_RATES`."""
EPSILONS: dict[str, tuple[float, ...]] = _NUMBERS["tables 9 and 10, ε"]
"""ε of the columns of Tables 9 and 10."""
TABLE_9, TABLE_10 = (
    {name: {float(rate): row for rate, row in block.items()} for name, block in _NUMBERS[table].items()}
    for table in ("table 9", "table 10")
)
"""Training losses and accuracies [%] by baseline and learning rate: the baseline's, then its twin's for each ε."""


def improved_cells() -> tuple[int, int]:
    """Return in how many cells of Table 9 the twin's loss is below the baseline's, and the number of cells."""
    gains = [row[0] - loss for block in TABLE_9.values() for row in block.values() for loss in row[1:]]
    return sum(gain > 0 for gain in gains), len(gains)

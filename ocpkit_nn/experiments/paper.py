"""The numbers that the paper reports (Liu, Chen & Theodorou, ICLR 2021), in one place.

Accuracies in %, losses as printed; all are means over 10 seeds. None: the paper has no number there.
"""

from __future__ import annotations

TABLE_3_METHODS = ("sgd-m", "rmsprop", "adam", "ekfac", "emsa", "vanilla-ddp", "ddpnopt")
TABLE_3: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("fcn", "wine"): (94.35, 98.10, 98.13, 94.60, 93.56, 98.00, 98.18),
    ("fcn", "digits"): (95.36, 94.33, 94.98, 95.24, 94.87, 91.68, 95.13),
    ("fcn", "mnist"): (92.65, 91.89, 92.54, 92.73, 90.24, 90.42, 93.30),
    ("fcn", "fashion-mnist"): (82.49, 83.87, 84.36, 84.12, 82.04, 81.98, 84.98),
    ("cnn", "mnist"): (97.94, 98.05, 98.04, 98.02, 96.48, None, 98.09),
    ("cnn", "svhn"): (89.00, 88.41, 87.76, 90.63, 79.45, None, 90.70),
    ("cnn", "cifar10"): (71.26, 70.52, 70.04, 71.85, 61.42, None, 71.92),
}
"""Table 3 by (network, data set), in the order of `TABLE_3_METHODS`."""

TABLE_4 = {
    "memory": {"ddpnopt": "O(X²L + BX)", "vanilla-ddp": "O(BX³L)"},
    "time": {"ddpnopt": "O(BX²L)", "vanilla-ddp": "O(B³X³L)"},
}
"""Table 4: cost in width X, depth L and batch B."""

TABLE_5 = {"sgd": (7e-2, 5e-1), "adam": (7e-4, 1e-2), "rmsprop": (7e-4, 1e-2), "ekfac": (1e-2, 3e-1)}
"""Table 5: ranges of the learning rate that were searched."""

BEST_RATES = {"sgd": 0.1, "rmsprop": 1e-3, "ekfac": 0.03}
"""Learning rates of Tables 6 to 8: the best of each baseline on DIGITS."""

TABLES_6_TO_8 = {
    "sgd": {"sgd": (0.035, 95.36), "ddpnopt": (0.032, 95.52)},
    "rmsprop": {"rmsprop": (0.058, 94.33), "ddpnopt": (0.052, 94.63)},
    "ekfac": {"ekfac": (0.074, 95.24), "ddpnopt": (0.067, 95.19)},
}
"""(training loss, accuracy) at `BEST_RATES`."""

EPSILONS = {"sgd": (5e-5, 1e-4, 5e-4, 1e-3), "rmsprop": (1e-9, 1e-8, 5e-6, 1e-5), "ekfac": (1e-7, 5e-7, 5e-6, 1e-5)}
"""ε of the columns of Tables 9 and 10."""

TABLES_9_AND_10: dict[str, dict[float, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "sgd": {
        0.4: ((0.1974, 0.1662, 0.1444, 0.1322, 0.1067), (91.46, 91.98, 92.71, 92.90, 93.12)),
        0.6: ((0.5809, 0.4989, 0.4867, 0.3263, 0.2764), (81.73, 83.64, 84.09, 88.39, 89.39)),
        0.7: ((1.0493, 0.9034, 0.8240, 0.6592, 0.5381), (70.48, 73.42, 75.44, 80.62, 82.87)),
        0.8: ((1.7801, 1.6898, 1.4597, 1.1784, 1.3166), (55.76, 57.70, 62.82, 70.23, 65.01)),
    },
    "rmsprop": {
        0.01: ((0.1949, 0.1638, 0.1714, 0.1746, 0.1588), (91.48, 92.14, 91.80, 91.73, 92.52)),
        0.02: ((0.4691, 0.4559, 0.4489, 0.4390, 0.4773), (84.15, 84.82, 85.02, 85.23, 83.00)),
        0.03: ((0.8156, 0.7675, 0.7736, 0.7790, 0.7893), (73.07, 75.24, 75.73, 74.29, 74.16)),
        0.045: ((1.3103, 1.2740, 1.2956, 1.2568, 1.2758), (59.80, 59.16, 60.98, 61.75, 59.87)),
    },
    "ekfac": {
        0.05: ((0.0757, 0.0636, 0.0659, 0.0691, 0.0717), (93.70, 93.84, 93.88, 94.31, 94.06)),
        0.09: ((0.2274, 0.2087, 0.2164, 0.2091, 0.2223), (90.84, 91.13, 91.45, 91.23, 91.24)),
        0.1: ((0.3260, 0.2771, 0.3003, 0.2543, 0.2510), (88.88, 89.69, 89.89, 90.18, 90.94)),
        0.3: ((0.5959, 0.5462, 0.5282, 0.5299, 0.5858), (81.82, 83.79, 84.09, 84.15, 82.55)),
    },
}
"""Training losses and accuracies [%] by baseline and learning rate: the baseline's, then its twin's for each ε."""
TABLE_9, TABLE_10 = (
    {name: {rate: rows[place] for rate, rows in block.items()} for name, block in TABLES_9_AND_10.items()}
    for place in (0, 1)
)


def improved_cells() -> tuple[int, int]:
    """Return in how many cells of Table 9 the twin's loss is below the baseline's, and the number of cells."""
    gains = [row[0] - loss for block in TABLE_9.values() for row in block.values() for loss in row[1:]]
    return sum(gain > 0 for gain in gains), len(gains)

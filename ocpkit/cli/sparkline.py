"""A curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=*#"


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Draw finite values between their least (the lowest block) and their greatest (the highest).

    Parameters
    ----------
    values
        One for each character, or more: then a character shows the mean of its share of them.
    width
        Greatest length of the text.
    ascii_only
        For terminals that cannot show blocks.
    """
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    count = min(len(values), width)
    if count < 1:
        return ""
    heights = np.array([part.mean() for part in np.array_split(np.asarray(values, float), count)])
    heights -= heights.min()
    levels = np.rint(heights / (heights.max() or 1.0) * (len(blocks) - 1)).astype(int)
    return "".join(blocks[level] for level in levels)

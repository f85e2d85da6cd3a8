"""The message for a name that is not known: what was meant, probably, and what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence for an unknown name, with the nearest known one and the list of all.

    Examples
    --------
    >>> unknown_name("loss", "mcm", ["ce", "mse", "mmc"])
    "unknown loss 'mcm'; did you mean 'mmc'? Known: ce, mse, mmc"
    """
    known = list(known)
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    guess = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {name!r}; {guess}Known: {', '.join(known)}"

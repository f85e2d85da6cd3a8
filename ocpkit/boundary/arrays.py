"""Arrays and counts that come from outside: checked, arrays copied and read-only; what is wrong is said by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocpkit.errors import ProblemError

Array = NDArray[np.float64]


def whole_number(value: Any, what: str, least: int = 1) -> int:
    """Check a count; 2.0 is none.

    Raises
    ------
    ProblemError
        If it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ProblemError(f"{what} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def real_array(value: Any, what: str) -> Array:
    """Copy anything array-like to floats.

    Raises
    ------
    ProblemError
        If it holds text, complex numbers, or rows of different lengths.
    """
    if value is None:
        raise ProblemError(f"{what} is missing (None)")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "cSU":  # NumPy would drop imaginary parts, and read numbers out of text
            raise TypeError(f"got {'complex numbers' if array.dtype.kind == 'c' else 'text'}")
        return np.array(array, dtype=float)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"{what} must hold real numbers: {error}") from error


def checked_vector(value: ArrayLike, size: int, what: str, *, finite: bool = True) -> Array:
    """Check and copy one vector; a scalar is spread over the entries where bounds are meant (`finite=False`)."""
    vector = real_array(value, what)
    if vector.ndim == 0 and not finite:
        vector = np.full(size, float(vector))
    if vector.shape != (size,):
        raise ProblemError(f"{what} has shape {vector.shape}, expected ({size},)")
    wrong = ~np.isfinite(vector) if finite else np.isnan(vector)
    if wrong.any():
        raise ProblemError(f"{what} is {'not finite' if finite else 'NaN'} at entry {int(wrong.argmax())}: {vector}")
    vector.setflags(write=False)
    return vector


def checked_series(values: Any, sizes: Sequence[int], what: str) -> tuple[Array, ...]:
    """Check and copy a sequence of vectors, one per stage."""
    return tuple(checked_rows(values, sizes, what))


def checked_rows(values: Any, sizes: Sequence[int], what: str) -> Any:
    """Check and copy a sequence of vectors, one per stage; an array with a row per stage stays one, else a tuple."""
    expected = (len(sizes), *{*sizes})  # of such an array, which has two dimensions, if sizes agree
    whole = isinstance(values, np.ndarray) and values.dtype == float and values.ndim == 2 and values.shape == expected
    if whole and np.isfinite(values).all():
        copied = values.copy()  # the common case at once; any other is named entry by entry below
        copied.setflags(write=False)
        return copied
    try:
        count = len(values)
    except TypeError as error:
        raise ProblemError(f"{what} must be a sequence of {len(sizes)} vectors, got {values!r}") from error
    if count != len(sizes):
        raise ProblemError(f"{what} has {count} entries, expected {len(sizes)}, one per stage")
    return tuple(checked_vector(value, size, f"{what}[{t}]") for t, (value, size) in enumerate(zip(values, sizes)))

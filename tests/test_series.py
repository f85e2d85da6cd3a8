import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocpkit.boundary.series import blocks_of, gather, join


def rows_of(sizes: list[int]) -> list[np.ndarray]:
    return [np.arange(n) + 10.0 * t for t, n in enumerate(sizes)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(-9, 9), st.integers(-9, 9))
def test_series_is_a_list_of_rows(sizes: list[int], first: int, last: int) -> None:
    rows = rows_of(sizes)
    series = gather(rows)
    assert len(series) == len(rows)
    for row, found in zip(rows, series, strict=True):
        np.testing.assert_array_equal(row, found)
    for row, found in zip(rows[first:last], series[first:last], strict=True):
        np.testing.assert_array_equal(row, found)
    np.testing.assert_array_equal(series[-1], rows[-1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_neighbors_of_equal_size_lie_in_one_array(sizes: list[int]) -> None:
    blocks = blocks_of(rows_of(sizes))
    assert all(a.shape[1] != b.shape[1] for a, b in itertools.pairwise(blocks))
    assert isinstance(join(blocks), np.ndarray) == (len(set(sizes)) == 1)


def test_place_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError):
        gather(rows_of([1, 2]))[2]

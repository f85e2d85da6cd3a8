"""The benchmark of exported controllers; nothing here looks at a speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import mpc_in_c


@pytest.mark.parametrize("push", [0.0, 0.01])
def test_the_row_counts_usable_ticks_and_those_at_a_bound(push: float) -> None:
    case = mpc_in_c.Case("cart-pole", mpc_in_c.cartpole, 1, push)
    line, usable = mpc_in_c.measure(case, 12, rounds=1)
    assert usable
    assert len(line) == len(mpc_in_c.HEADER)
    assert line[-1] == "12 of 12"
    assert int(line[2].split()[0]) > 0


def test_the_page_is_renewed_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpc_in_c, "CASES", mpc_in_c.CASES[-1:])
    page = tmp_path / "page.md"
    assert mpc_in_c.main(3, page) == 0
    page.write_text("before\n" + page.read_text() + "after\n")
    assert mpc_in_c.main(3, page) == 0
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert text.count("| bounded cart-pole, one iteration | 50 |") == 1

"""The Python in the documents runs, and its assertions hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{name}-{i}")
    for name in ("constraints.md", "mpc.md", "multiple-shooting.md", "parameters-and-noise.md")
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL))
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("block", BLOCKS)
def test_it_runs(block: str) -> None:
    assert "assert" in block
    exec(compile(block, "documented code", "exec"), {})

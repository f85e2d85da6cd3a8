"""The chapter docs/one-recursion.md: its code runs, its assertions hold, its figures can be drawn."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
SCRIPTS = ["feedback_toy", "two_passes", pytest.param("many_optimizers", marks=pytest.mark.slow)]


def test_the_code_of_the_chapter_runs_from_top_to_bottom():
    blocks = CODE.findall((ROOT / "docs" / "one-recursion.md").read_text(encoding="utf-8"))
    namespace = {}
    for block in blocks:
        exec(compile(block, "docs/one-recursion.md", "exec"), namespace)
    assert sum("assert" in block for block in blocks) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_each_figure_is_made_by_its_script(script, tmp_path):
    runpy.run_path(str(ROOT / "examples" / f"{script}.py"))["main"](tmp_path)
    picture = tmp_path / f"{script.replace('_', '-')}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (ROOT / "docs" / "images" / picture.name).exists()

"""The documents run: on each page Python from top to bottom, and the shell's `ocpkit` lines between.

The chapter docs/one-recursion.md has a test of its own (tests/properties/test_chapter.py).
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ocpkit.cli.commands import app

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```(python|sh)(?: title=\"([^\"\n]*)\")?\n(.*?)```", re.DOTALL)
PAGES = {
    path.relative_to(ROOT).as_posix(): BLOCK.findall(path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if path.name != "one-recursion.md"
}
LONG = ("docs/tutorials/robot-task.md", "docs/tutorials/classifier.md")
RUNNABLE = [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
    for name, blocks in PAGES.items()
    if any(language == "python" for language, _, _ in blocks)
]


def test_there_are_pages() -> None:
    assert len(RUNNABLE) >= 12


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs").rglob("*.md"), key=str), ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_links_lead_to_what_the_site_has(page: Path) -> None:
    """mkdocs warns of none that leaves docs/, where the site ends."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            there = (page.parent / target).resolve()
            assert there.is_relative_to(ROOT / "docs"), target
            assert there.exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_it_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "docs/robots.md":
        pytest.importorskip("numpy", "2", reason="adam-robotics needs NumPy 2: pip install 'ocpkit[robots]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for file in (ROOT / "tests" / "robots" / "arm.urdf", ROOT.joinpath("ocpkit", "robots", "assets", "hopper.xml")):
        shutil.copy(file, tmp_path)
    namespace: dict[str, Any] = {}
    for language, title, block in PAGES[page]:
        if title:
            Path(title).write_text(block, encoding="utf-8")
        elif language == "python":
            exec(compile(block, page, "exec"), namespace)
        else:
            for line in re.findall(r"^ocpkit (.*)", block, re.MULTILINE):
                done = CliRunner().invoke(app, shlex.split(line))
                assert done.exit_code == 0, f"{line}: {done.output}"
    assert page == "README.md" or any("assert" in block for _, _, block in PAGES[page])

"""The notebooks hold what the scripts and pages hold, and their cells run in a fresh Jupyter kernel."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from examples import notebooks
from tests.test_documented_code import PAGES

QUICK = ("feedback_toy", "own-model")
NOTEBOOKS = {path.stem: path for path in (*notebooks.SCRIPTS, *notebooks.PAGES)}


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")  # where `ocpkit` is
    monkeypatch.setenv("OCPKIT_QUICK", "1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()


def test_every_script_but_the_tools_and_every_tutorial_is_one() -> None:
    scripts = {path.stem for path in Path(notebooks.__file__).parent.glob("*.py")}
    assert scripts - {path.stem for path in notebooks.SCRIPTS} == {"gallery", "notebooks"}
    assert len(notebooks.PAGES) >= 5
    assert len(NOTEBOOKS) == len(notebooks.SCRIPTS) + len(notebooks.PAGES)  # no two of one name


@pytest.mark.parametrize("path", notebooks.SCRIPTS, ids=lambda path: path.stem)
def test_a_script_loses_nothing_but_its_command_line(path: Path) -> None:
    """The statements of the cells are those of the file, up to its docstring and what ends it."""
    notebook = notebooks.from_script(path)
    cells = [ast.dump(statement) for cell in code(notebook) for statement in ast.parse(cell).body]
    _, *body = ast.parse(path.read_text(encoding="utf-8")).body
    ends = isinstance(body[-1], ast.If)
    assert cells[: len(body) - ends] == [ast.dump(statement) for statement in body[: len(body) - ends]]
    assert len(cells) == len(body) + 2 * ends  # an import, main and the picture
    assert notebook.cells[0].source.startswith("# ")
    assert path.name not in notebook.cells[0].source


@pytest.mark.parametrize("path", notebooks.PAGES, ids=lambda path: path.stem)
def test_a_page_keeps_its_blocks_in_order(path: Path) -> None:
    magic = {"sh": "%%sh -e\n", "python": ""}
    expected = [
        f"%%writefile {title}\n{block}" if title else magic[language] + block
        for language, title, block in PAGES[f"docs/tutorials/{path.name}"]
    ]
    notebook = notebooks.from_page(path)
    assert code(notebook) == [block.rstrip("\n") for block in expected]
    assert not any("](../" in cell.source for cell in notebook.cells)  # nothing is beside a notebook but notebooks


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NOTEBOOKS])
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {path.stem: path for path in notebooks.write(tmp_path)}
    assert set(written) == set(NOTEBOOKS)
    notebook = jupytext.read(written[name])
    execute(notebook, tmp_path, monkeypatch)
    if NOTEBOOKS[name].suffix == ".py" and name != "train_own_module":  # which draws nothing
        shown = [output.data for output in notebook.cells[-1].outputs if output.output_type == "execute_result"]
        assert "image/png" in shown[0]


def test_a_command_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nfalse\ntrue\n```\n", encoding="utf-8")
    with pytest.raises(CellExecutionError):
        execute(notebooks.from_page(page), tmp_path, monkeypatch)

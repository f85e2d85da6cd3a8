"""The import graph has one direction; the page docs/architecture.md says so, and draws it by the same code."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "architecture.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("architecture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_imports_go_in_no_circle(script: Any) -> None:
    graph = script.import_graph(script.sources())
    assert len(graph) > 100
    script.levels(graph)
    script.levels(script.coarse(graph))


def test_a_room_imports_only_from_rooms_before_it(script: Any) -> None:
    page = (SCRIPT.parent / "architecture.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(ocpkit\S*)/` \|", page, re.MULTILINE)) == script.ROOMS
    place = {f"{room.replace('/', '.')}/": i for i, room in enumerate(script.ROOMS)}
    rooms = {name: below for name, below in script.coarse(script.import_graph(script.sources())).items() if "/" in name}
    assert rooms.keys() == place.keys()
    wrong = [(name, other) for name, below in rooms.items() for other in below if place.get(other, -1) > place[name]]
    assert wrong == []


def test_a_circle_would_be_named(script: Any) -> None:
    trees = {"a": ast.parse("import b"), "b": ast.parse("def f():\n    from a import x"), "c": ast.parse("import d")}
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        script.levels(script.import_graph(trees))


@pytest.mark.slow
def test_control_does_not_need_networks(script: Any) -> None:
    """Nor does a library need its command line."""
    graph = script.import_graph(script.sources())
    library = {name: below for name, below in graph.items() if not name.startswith(("ocpkit.cli", "ocpkit.__main__"))}
    assert not [name for name, below in library.items() for other in below if name < "ocpkit_nn" <= other]
    assert not [name for name, below in library.items() for other in below if other.startswith("ocpkit.cli")]


def test_pictures_are_drawn_by_nobody_below_the_command_line(script: Any) -> None:
    graph = script.import_graph(script.sources())
    users = {
        name.partition(".")[2].partition(".")[0]
        for name, below in graph.items()
        if any("ocpkit.plotting" in other for other in below)
    }
    assert users <= {"plotting", "cli", ""}  # "": the public names


@pytest.mark.slow
def test_every_module_says_what_it_is(script: Any) -> None:
    silent = [name for name, tree in script.sources().items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_the_drawing_takes_its_place_on_the_page(script: Any) -> None:
    page = (SCRIPT.parent / "architecture.md").read_text(encoding="utf-8")
    drawn = script.on_page_markdown(page)
    assert script.PLACE not in drawn
    assert "| `ocpkit.recursion.bellman` |" in drawn


def test_docstrings_open_with_a_noun(script: Any) -> None:
    """Not with a riddle: "What stands for …"."""
    riddle = re.compile(r"(What|How|Which|Where|Is|Are|That which)\b")
    riddles = [
        f"{name}: {text[:60]}"
        for name, tree in script.sources().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and riddle.match(text := ast.get_docstring(node) or "")
    ]
    assert riddles == []


def test_the_spelling_is_american() -> None:
    stems = "optim|minim|maxim|normal|linear|regular|random|factor|discret|general|initial"
    british = re.compile(rf"({stems})is(e|ed|ing|er|ation)|colour|behaviour|neighbour")
    root = SCRIPT.parents[1]
    files = [path for folder in ("ocpkit", "ocpkit_nn") for path in (root / folder).rglob("*.py")]
    old_names = ("moved.py", "pmp.py", "methods.py", "e3.py")
    found = [path.name for path in files if british.search(path.read_text(encoding="utf-8"))]
    assert set(found) <= set(old_names)

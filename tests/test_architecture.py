"""The import graph has one direction; the page docs/architecture.md says so, and draws it by the same code."""

from __future__ import annotations

import ast
import importlib.util
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


def test_imports_go_in_no_circle(script: Any) -> None:
    graph = script.import_graph(script.sources())
    assert len(graph) > 100
    script.levels(graph)
    script.levels(script.coarse(graph))


def test_a_circle_would_be_named(script: Any) -> None:
    trees = {"a": ast.parse("import b"), "b": ast.parse("from a import x"), "c": ast.parse("def f():\n    import b")}
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        script.levels(script.import_graph(trees))


def test_control_does_not_need_networks(script: Any) -> None:
    graph = script.import_graph(script.sources())
    assert not [name for name, below in graph.items() for other in below if name < "ocpkit_nn" <= other]


def test_every_module_says_what_it_is(script: Any) -> None:
    silent = [name for name, tree in script.sources().items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_the_drawing_takes_its_place_on_the_page(script: Any) -> None:
    page = (SCRIPT.parent / "architecture.md").read_text(encoding="utf-8")
    drawn = script.on_page_markdown(page)
    assert script.PLACE not in drawn
    assert "| `ocpkit.bellman` |" in drawn

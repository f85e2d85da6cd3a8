"""The API reference and the page of commands are whole: what a user may write is found there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import ocpkit
from ocpkit.cli.commands import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
DIRECTIVES = [
    line for page in sorted((DOCS / "api").glob("*.md")) for line in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
]
BLOCK = re.compile(r"```python[^\n]*\n(.*?)```", re.DOTALL)


def found(path: str) -> Any:
    """Return the module or the member of one that a directive names."""
    try:
        return import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)


SHOWN = [found(path) for path in DIRECTIVES]


def is_shown(value: Any) -> bool:
    """Whether a page shows it, or the whole module that it is from."""
    return any(value is other for other in SHOWN) or inspect.getmodule(value) in SHOWN


@pytest.mark.parametrize("name", ocpkit.__all__)
def test_every_name_of_the_package_is_in_the_reference(name: str) -> None:
    value = getattr(ocpkit, name)
    assert is_shown(value) or isinstance(value, str)


def imports(page: Path) -> Iterator[tuple[str, str]]:
    """Modules and names that the code of a page imports from this library."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ocpkit"):
                yield from ((str(node.module), alias.name) for alias in node.names)


PAGES = {page.relative_to(DOCS).as_posix(): sorted(set(imports(page))) for page in sorted(DOCS.rglob("*.md"))}
USED = sorted({pair for pairs in PAGES.values() for pair in pairs if ".experiments" not in pair[0]})


@pytest.mark.parametrize(("module", "name"), USED)
def test_what_the_pages_import_is_in_the_reference(module: str, name: str) -> None:
    value = getattr(import_module(module), name, None)
    assert is_shown(import_module(module)) or is_shown(import_module(f"{module}.{name}") if value is None else value)


def test_the_page_of_commands_names_all_of_them() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert [name for name in commands if f"`ocpkit {name}" not in text] == []

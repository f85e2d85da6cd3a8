"""Draw the import graph from the code alone; the build of the site puts it on its page, a call of this file prints it.

What counts is what a module imports when it is itself imported: not under TYPE_CHECKING, not inside functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ocpkit", "ocpkit_nn")
PLACE = "<!-- the import graph -->"
Graph = dict[str, set[str]]
"""Each module, and the modules that its import imports."""


def sources() -> dict[str, ast.Module]:
    """Every module by its dotted name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(trees: Mapping[str, ast.Module]) -> Graph:
    """Edges between our own modules."""
    return {name: {found for found in _imports(tree, trees) if found != name} for name, tree in trees.items()}


def _imports(tree: ast.Module, known: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in _run_at_import(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (member if member in known else node.module for member in members)


def _run_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that an import runs, those inside try and if included."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield from _run_at_import(getattr(node, part, []))


def levels(graph: Graph) -> dict[str, int]:
    """0 for modules that import none of ours; else one more than the highest of what they import.

    Raises
    ------
    ValueError
        If imports go in a circle; names the modules left over.
    """
    level: dict[str, int] = {}
    while len(level) < len(graph):
        ready = {name for name in graph.keys() - level.keys() if graph[name] <= level.keys()}
        if not ready:
            raise ValueError(f"imports go in a circle among {sorted(graph.keys() - level.keys())}")
        level |= {name: 1 + max((level[below] for below in graph[name]), default=-1) for name in ready}
    return level


def coarse(graph: Graph) -> Graph:
    """The same with each folder below the top of a package as one node."""
    merged: Graph = {}
    for name, below in graph.items():
        merged.setdefault(_folder(name), set()).update(_folder(other) for other in below)
    return {name: below - {name} for name, below in merged.items()}


def _folder(name: str) -> str:
    package, *rest = name.split(".")
    is_folder = bool(rest) and (ROOT / package / rest[0]).is_dir()
    return ".".join([package, *rest[:1]]) + "/" * is_folder


def drawing() -> str:
    """Return the levels, and a table of the modules of each folder, as Markdown."""
    trees = sources()
    graph = import_graph(trees)
    rank = levels(coarse(graph))
    lines = ["```text"]
    for level in range(max(rank.values()), -1, -1):
        lines.append(f"{level:>2}  {'  '.join(sorted(name for name in rank if rank[name] == level))}")
    lines.append("```")
    members: dict[str, list[str]] = {}
    for name in graph:
        folder = _folder(name)
        members.setdefault(folder if folder.endswith("/") else f"{name.split('.')[0]}/", []).append(name)
    for folder, names in sorted(members.items()):
        lines += ["", f"### {folder.replace('.', '/')}", "", "| module | what it is | imports |", "|---|---|---|"]
        lines += [_row(name, trees[name], graph[name]) for name in names]
    return "\n".join(lines) + "\n"


def _row(name: str, tree: ast.Module, below: set[str]) -> str:
    summary = (ast.get_docstring(tree) or "").partition("\n")[0].replace("|", "\\|")
    return f"| `{name}` | {summary} | {', '.join(f'`{other}`' for other in sorted(below))} |"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the drawing in its place (a hook of MkDocs)."""
    return markdown.replace(PLACE, drawing()) if PLACE in markdown else markdown


if __name__ == "__main__":
    print(drawing())

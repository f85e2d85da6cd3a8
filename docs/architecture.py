"""Draw the import graph from the code alone; the build of the site puts it on its page, a call of this file prints it.

Every import counts, those inside functions and under TYPE_CHECKING included, and of a package the names in its stub.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ocpkit", "ocpkit_nn")
PLACE = "<!-- the import graph -->"
ROOMS = (
    *("ocpkit/boundary", "ocpkit/autodiff", "ocpkit/recursion", "ocpkit/problem", "ocpkit/solution"),
    *("ocpkit/engines", "ocpkit/engines/c", "ocpkit/engines/batch"),
    *("ocpkit/solvers/verdicts", "ocpkit/solvers", "ocpkit/solvers/ddp", "ocpkit/solvers/first_order"),
    *("ocpkit/solvers/constrained", "ocpkit/solvers/primal_dual", "ocpkit/solvers/nlp", "ocpkit/control"),
    *("ocpkit/models", "ocpkit/robots", "ocpkit/plotting"),
    *("ocpkit_nn/data", "ocpkit_nn/layers", "ocpkit_nn/passes", "ocpkit_nn/optim", "ocpkit_nn/training"),
    *("ocpkit_nn/experiments", "ocpkit/cli"),
)
"""Every folder of the packages, in the order of their table on the page: a room imports only from those before it."""
Graph = dict[str, set[str]]
"""Each module, and the modules that it imports."""


def sources() -> dict[str, ast.Module]:
    """Every module by its dotted name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {_name(path): ast.parse(_text(path)) for path in files}


def _text(path: Path) -> str:
    stub = path.with_suffix(".pyi")
    return path.read_text(encoding="utf-8") + (stub.read_text(encoding="utf-8") if stub.exists() else "")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(trees: Mapping[str, ast.Module]) -> Graph:
    """Edges between our own modules."""
    return {name: {found for found in _imports(tree, trees) if found != name} for name, tree in trees.items()}


def _imports(tree: ast.Module, known: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (member if member in known else node.module for member in members)


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
    """The same with each folder as one node, its own subfolders apart."""
    merged: Graph = {}
    for name, below in graph.items():
        merged.setdefault(_folder(name), set()).update(_folder(other) for other in below)
    return {name: below - {name} for name, below in merged.items()}


def _folder(name: str) -> str:
    """Return the folder of a module below the top of its package, or the module itself at the top."""
    folder = name if ROOT.joinpath(*name.split(".")).is_dir() else name.rpartition(".")[0]
    return name if folder in PACKAGES or folder == "" else f"{folder}/"


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

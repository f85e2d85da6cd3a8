"""Write the examples and the tutorials as Jupyter notebooks: ``python examples/notebooks.py [folder]``.

The scripts and the pages stay the only source: `# %%` divides a script into cells, a page has text and blocks of code.
Needs jupytext. `gallery.py` is left out: it films every task for some minutes and writes a page of the documentation.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import jupytext

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(set((ROOT / "examples").glob("*.py")) - {Path(__file__), ROOT / "examples" / "gallery.py"})
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
USAGE = re.compile(r":? *``python examples/\w+\.py[^`]*``\.?")
TITLE = re.compile(r"(?<=title=\")[^\"]+")


def from_script(path: Path) -> Any:
    """Return the notebook of a script; its last cell runs `main` and shows the picture, instead of the command line."""
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, "py:percent")
    heading, last = notebook.cells[0], notebook.cells[-1]
    heading.source = "# " + USAGE.sub("", heading.source)
    if last.source.startswith('if __name__ == "__main__":'):
        call = (
            'main(Path("."), quick=True)  # quick=False: as in the gallery'
            if "quick: bool" in text
            else 'main(Path("."))'
        )
        picture = f"{path.stem.replace('_', '-')}.png"
        last.source = f'from IPython.display import Image\n\n{call}\nImage("{picture}")'
    return notebook


def from_page(path: Path) -> Any:
    """Return the notebook of a page: a block with a title becomes a file, and `sh` stops where a command fails."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), "md")
    for cell in notebook.cells:
        title = cell.metadata.pop("title", None)
        if title is not None:
            cell.source = f"%%writefile {title}\n{cell.source}"
        elif cell.cell_type == "code":
            cell.source = re.sub(r"^%%sh$", "%%sh -e", cell.source, flags=re.MULTILINE)
        else:
            cell.source = re.sub(r"\]\(([\w-]+)\.md\)", r"](\1.ipynb)", cell.source)
            cell.source = re.sub(r"\[([^]]*)\]\(\.\./([^)#]*)[^)]*\)", r"\1 (docs/\2)", cell.source)
    return notebook


def write(folder: Path) -> list[Path]:
    """Write all notebooks into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    notebooks = {path.stem: from_script(path) for path in SCRIPTS} | {path.stem: from_page(path) for path in PAGES}
    for name, notebook in notebooks.items():
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        jupytext.write(notebook, folder / f"{name}.ipynb")
    return [folder / f"{name}.ipynb" for name in notebooks]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("notebooks"))
    print(*write(parser.parse_args().folder), sep="\n")

"""Two columns, name and text, as a terminal and as a notebook show them."""

from __future__ import annotations

from collections.abc import Sequence

Table = Sequence[tuple[str, str]]


def as_text(rows: Table) -> str:
    """Align the names at the left."""
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def as_html(rows: Table) -> str:
    """Return a table without a header."""
    from html import escape  # notebooks alone need it

    cells = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{''.join(cells)}</table>"

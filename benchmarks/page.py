"""Pages with measurements: what is between two marks is printed by a command, what people wrote around it stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def write(path: Path, title: str, command: str, machine: dict[str, str], sections: Iterable[str]) -> None:
    """Write or renew the measured part of a page.

    Raises
    ------
    ValueError
        If the page exists without the marks.
    """
    made = f"Printed by `{command}` on: " + ", ".join(f"{key} {value}" for key, value in machine.items()) + "."
    measured = "\n\n".join([START, made, *sections, END])
    old = path.read_text() if path.exists() else f"# {title}\n\n{START}{END}\n"
    if START not in old or END not in old:
        raise ValueError(f"{path} has no marks {START} … {END} to write between")
    before, after = old.split(START)[0], old.split(END)[1]
    path.write_text(before + measured + after)


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))

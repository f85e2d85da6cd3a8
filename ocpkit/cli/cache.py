"""`ocpkit cache`: the compiled solvers on disk."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ocpkit.cli.report import print_json
from ocpkit.engines.c.cache import Entry, open_cache
from ocpkit.engines.c.records import Record, read_record

cache_app = typer.Typer(help="List or remove the compiled solvers that are kept on disk; without a command: list.")
WIDTH = 140  # of a listing that goes into a file
COLUMNS = ("problem", "n", "m", "engine", "kB", "cost [s]", "loads", "saved [s]", "last used", "file")


@cache_app.callback(invoke_without_command=True)
def cache_command(context: typer.Context) -> None:
    """List or remove the compiled solvers that are kept on disk; without a command: list."""
    if context.invoked_subcommand is None:
        list_command()


@cache_app.command("list")
def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False) -> None:
    """List the compiled solvers, the most recently used first: what each is, what it cost, and what it has saved."""
    cache = open_cache()
    known = [(entry, read_record(entry.path)) for entry in cache.entries()]
    total = {
        "bytes": sum(entry.bytes for entry, _ in known),
        "seconds": sum(record.seconds for _, record in known if record is not None),
        "loads": sum(record.loads for _, record in known if record is not None),
        "saved": sum(record.saved for _, record in known if record is not None),
    }
    if as_json:
        files = [_as_record(entry, record) for entry, record in known]
        print_json({"folder": str(cache.folder), "note": cache.note, "files": files, "total": total})
        return
    table = Table(box=None, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("problem", "engine", "last used", "file") else "right")
    for entry, record in known:
        end = (_time(entry.used), entry.path.stem[:20])
        size = f"{entry.bytes / 1000:.0f}"
        if record is None:
            table.add_row("unknown", "", "", "", size, "", "", "", *end)
            continue
        sizes = (str(record.states), str(record.controls), escape(record.engine), size)
        table.add_row(escape(record.problem), *sizes, *_spent(record.seconds, record.loads, record.saved), *end)
    if known:
        kilobytes = f"{total['bytes'] / 1000:.0f}"
        spent = _spent(total["seconds"], total["loads"], total["saved"])
        table.add_row(f"total of {len(known)}", "", "", "", kilobytes, *spent, "", "", style="bold")
    typer.echo(f"{cache.folder} {cache.note}".strip())
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _spent(seconds: float, loads: float, saved: float) -> tuple[str, str, str]:
    return f"{seconds:.1f}", f"{loads:.0f}", f"{saved:.1f}"


def _as_record(entry: Entry, record: Record | None) -> dict[str, Any]:
    known = {} if record is None else asdict(record) | {"saved": record.saved}
    return {"file": entry.path.name, "bytes": entry.bytes, "used": _time(entry.used), **known}


@cache_app.command("clear")
def clear_command() -> None:
    """Remove all compiled solvers; they are built again when they are needed."""
    cache = open_cache()
    typer.echo(f"removed {cache.clear()} compiled solvers from {cache.folder}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(sep=" ", timespec="seconds")

"""`ocpkit cache`: the compiled solvers on disk."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ocpkit.cli.report import print_json
from ocpkit.engines.c.cache import open_cache

cache_app = typer.Typer(no_args_is_help=True, help="List or remove the compiled solvers that are kept on disk.")


@cache_app.command("list")
def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False) -> None:
    """List the compiled solvers, the most recently used first."""
    cache = open_cache()
    entries = cache.entries()
    if as_json:
        files = [{"file": entry.path.name, "bytes": entry.bytes, "used": _time(entry.used)} for entry in entries]
        print_json({"folder": str(cache.folder), "note": cache.note, "files": files})
        return
    table = Table(box=None, header_style="bold")
    for name in ("compiled solver", "kB", "last used"):
        table.add_column(name)
    for entry in entries:
        table.add_row(entry.path.stem, f"{entry.bytes / 1000:.0f}", _time(entry.used))
    typer.echo(f"{cache.folder} {cache.note}".strip())
    Console().print(table)


@cache_app.command("clear")
def clear_command() -> None:
    """Remove all compiled solvers; they are built again when they are needed."""
    cache = open_cache()
    typer.echo(f"removed {cache.clear()} compiled solvers from {cache.folder}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(sep=" ", timespec="seconds")

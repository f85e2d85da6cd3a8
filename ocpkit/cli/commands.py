"""The commands of `ocpkit`, one file each, registered here.

What a command computes goes to stdout; progress, notices and errors go to stderr. Heavy imports
(the models, matplotlib, torch) happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ocpkit import __version__
from ocpkit.cli.cache import cache_app
from ocpkit.cli.compare import compare_command
from ocpkit.cli.doctor import doctor_command
from ocpkit.cli.exits import CommandGroup
from ocpkit.cli.export import export_command
from ocpkit.cli.listing import list_command
from ocpkit.cli.mpc import mpc_command
from ocpkit.cli.reproduce import reproduce_command
from ocpkit.cli.solve import SolveCommand, solve_command
from ocpkit.cli.train import train_command

app = typer.Typer(
    name="ocpkit",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ocpkit {__version__}")
        raise typer.Exit


@app.callback()
def ocpkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Optimal control: solve a task, see it move, compare solvers.

    Start with: ocpkit list, then ocpkit solve cartpole --animate
    """


app.command("list")(list_command)
app.command("solve", cls=SolveCommand)(solve_command)
app.command("mpc")(mpc_command)
app.command("compare")(compare_command)
app.command("train")(train_command)
app.command("reproduce")(reproduce_command)
app.command("export")(export_command)
app.command("doctor")(doctor_command)
app.add_typer(cache_app, name="cache")

"""Exit statuses, and how failures become one line on stderr instead of a traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ocpkit.errors import ProblemError
from ocpkit.solution.solution import Solution, Status

NOT_CONVERGED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def exit_status(solution: Solution) -> int:
    """0 only when converged; 130 (128 + SIGINT) after Ctrl-C, as shells expect."""
    if solution.status is Status.INTERRUPTED:
        return INTERRUPTED
    return 0 if solution.success else NOT_CONVERGED


class CommandGroup(TyperGroup):
    """All commands: wrong input ends in one line and exit status 2, Ctrl-C in exit status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ProblemError as error:
            message = " ".join(str(error).split())
        except BrokenPipeError:
            raise
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        typer.secho("error: ", fg="red", err=True, nl=False)
        typer.echo(message, err=True)
        raise typer.Exit(BAD_INPUT)

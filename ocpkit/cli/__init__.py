"""The command line, `ocpkit`; what it can do is in `commands`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script; Ctrl-C ends it with one line, also while its commands are being imported."""
    try:
        from ocpkit.cli.commands import app

        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + 2)  # SIGINT, as shells expect

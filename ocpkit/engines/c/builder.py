"""The process that builds a C solver beside another one (see `build`): reads graphs, fills the cache, says how."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from contextlib import suppress
from threading import Thread
from typing import NoReturn

from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.library import PATIENCE, add_to_cache
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.errors import UnsupportedProblem

NICENESS = 5  # the solve that goes on meanwhile comes first, but a busy machine must not keep C away
INTERVAL = 0.2  # seconds between two looks at whether anybody is still there to want the result
TIDYING = 1.0  # seconds


def main() -> NoReturn:
    """Build the solver whose graph, key and client are pickled on stdin; print the seconds, or the error, as JSON."""
    signal.signal(signal.SIGTERM, _leave)
    graph, key, client = pickle.load(sys.stdin.buffer)
    with suppress(AttributeError, OSError):  # Windows
        os.nice(NICENESS)
    Thread(target=_watch, args=(client,), daemon=True).start()
    try:
        said = _build(graph, key)
    except UnsupportedProblem as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)
    os._exit(0)  # nothing is left to tidy up, and CasADi takes its time for it


def _build(graph: ProblemGraph, key: str) -> dict[str, float | str]:
    """Build, unless another process does; return the seconds, nothing where there was nothing to do."""
    with open_cache().claim(key, PATIENCE):
        if open_cache().find(key) is not None:
            return {}
        _, times = add_to_cache(graph, key)
    return {"generate": times.generate, "compile": times.compile}


def _leave(*_: object) -> NoReturn:
    """End where the main thread is, so that the compiler is ended and its files are removed."""
    sys.exit(1)


def _watch(client: int) -> None:
    """End this process when the one that has asked for it is gone."""
    if os.name == "nt":
        return
    while os.getppid() == client:
        time.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(TIDYING)
    os._exit(1)

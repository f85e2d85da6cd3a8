"""The process that builds a C solver beside another one (see `build`): reads graphs, fills the cache, says how.

It compiles twice: without optimization, which is ready much sooner and serves until the other one is.
Each time it prints a line of JSON, the seconds or the error.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import Any, NoReturn

from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.library import PATIENCE, BuildTimes, add_to_cache
from ocpkit.engines.c.source import c_source
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.errors import UnsupportedProblem

NICENESS = 5  # the solve that goes on meanwhile comes first, but a busy machine must not keep C away
INTERVAL = 0.2  # seconds between two looks at whether anybody is still there to want the result
TIDYING = 1.0  # seconds


def main() -> NoReturn:
    """Build the solver whose graph and keys are pickled on stdin."""
    signal.signal(signal.SIGTERM, _leave)
    client = os.getppid()
    graph, key, quick_key = pickle.load(sys.stdin.buffer)
    with suppress(AttributeError, OSError):  # Windows
        os.nice(NICENESS)
    Thread(target=_watch, args=(client,), daemon=True).start()
    try:
        for said in _build(graph, key, quick_key):
            print(json.dumps(said), flush=True)
    except UnsupportedProblem as error:
        print(json.dumps({"error": str(error)}), flush=True)
    os._exit(0)  # nothing is left to tidy up, and CasADi takes its time for it


def _build(graph: ProblemGraph, key: str, quick_key: str) -> Iterator[dict[str, Any]]:
    """Build, unless another process does: first without optimization, then with; yield the seconds of each."""
    cache = open_cache()
    with cache.claim(key, PATIENCE):
        if cache.find(key) is not None:
            return
        began = time.perf_counter()
        text = c_source(graph.structure()).text
        times = BuildTimes(time.perf_counter() - began, 0.0)
        if cache.find(quick_key) is None:
            _, quick_times = add_to_cache(graph, quick_key, text, times, quick=True)
            yield {"quick": True, "seconds": quick_times.as_record()}
        _, times = add_to_cache(graph, key, text, times)
        cache.drop(quick_key)
    yield {"quick": False, "seconds": times.as_record()}


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

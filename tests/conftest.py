"""Compiled solvers of the tests go to pytest's own cache, barely optimized so that they compile quickly.

Nothing is compiled beside but where a test asks for it: engines are then what the test says, on busy machines too.
Ctrl-C is heard also by tests that a shell runs in its background, which ignores it.
"""

from __future__ import annotations

import signal
import sys
from collections import OrderedDict
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _compile_for_tests(pytestconfig: pytest.Config) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCPKIT_CACHE", str(pytestconfig.cache.mkdir("compiled")))
        patch.setenv("OCPKIT_CFLAGS", "-O1")
        patch.setenv("OCPKIT_BUILD_BESIDE", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def _hear_interrupts() -> None:
    """What is ignored here would be ignored by every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _imports_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file's folder is put before all others on sys.path, and may hold an ocpkit.py."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def builds_beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has compiled nothing yet, and builds at once what it solves."""
    from ocpkit.engines.c import build, library
    from ocpkit.solvers.ddp import switch

    monkeypatch.setenv("OCPKIT_BUILD_BESIDE", "1")
    monkeypatch.setattr(library, "_loaded", {})
    for name, empty in (("_builds", {}), ("_failed", OrderedDict())):
        monkeypatch.setattr(build, name, empty)
    monkeypatch.setattr(switch, "WORTH", 0.0)
    yield
    for begun in list(build._builds.values()):
        begun.end()

"""Compiled solvers of the tests go to pytest's own cache, barely optimized so that they compile quickly."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def _compile_for_tests(pytestconfig: pytest.Config) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCPKIT_CACHE", str(pytestconfig.cache.mkdir("compiled")))
        patch.setenv("OCPKIT_CFLAGS", "-O1")
        yield


@pytest.fixture(autouse=True)
def _imports_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file's folder is put before all others on sys.path, and may hold an ocpkit.py."""
    monkeypatch.setattr(sys, "path", [*sys.path])

"""Compiled solvers of the tests go to pytest's own cache, barely optimised so that they compile quickly."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _compile_for_tests(pytestconfig: pytest.Config) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCPKIT_CACHE", str(pytestconfig.cache.mkdir("compiled")))
        patch.setenv("OCPKIT_CFLAGS", "-O1")
        yield

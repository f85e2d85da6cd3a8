"""Importing ocpkit is cheap: the heavy optional packages stay out."""

import subprocess
import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["ocpkit", "ocpkit.solvers.registry"])
def test_import_leaves_out_heavy_packages(module: str) -> None:
    heavy = ("torch", "matplotlib", "sklearn", "joblib", "PIL")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_solver_is_loaded_without_the_others() -> None:
    others = [f"ocpkit.solvers.{name}" for name in ("constrained", "gradient", "ilqg", "interior", "nlp", "pmp")]
    program = f"import sys, ocpkit; ocpkit.DDP; print([name for name in {others} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["ocpkit", "ocpkit.solvers"])
def test_every_public_name_exists(name: str) -> None:
    package = import_module(name)
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert missing == []
    assert sorted(set(package.__all__)) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", ["ocpkit", "ocpkit.solvers"])
def test_a_name_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'DPP'"):
        _ = import_module(name).DPP

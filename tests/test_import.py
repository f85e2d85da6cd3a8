"""Importing ocpkit is cheap: the heavy optional packages stay out."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import ocpkit
import ocpkit_nn


@pytest.mark.parametrize("module", ["ocpkit", "ocpkit.registry", "ocpkit_nn"])
def test_import_leaves_out_heavy_packages(module: str) -> None:
    heavy = ("torch", "matplotlib", "sklearn", "joblib", "PIL")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_solver_is_loaded_without_the_others() -> None:
    homes = ("solvers.constrained", "solvers.first_order", "solvers.nlp", "control", "plotting", "cli")
    others = [f"ocpkit.{name}" for name in homes]
    program = f"import sys, ocpkit; ocpkit.DDP; print([name for name in {others} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("package", [ocpkit, ocpkit_nn])
def test_every_public_name_exists(package: ModuleType) -> None:
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert missing == []
    assert set(package.__all__) <= set(dir(package))


def test_a_star_does_not_need_torch() -> None:
    assert not {"torch_layer", "solve_batch", "BatchSolution"} & set(ocpkit.__all__)


@pytest.mark.parametrize("name", ["ocpkit", "ocpkit.solvers", "ocpkit.problem", "ocpkit_nn", "ocpkit_nn.optim"])
def test_a_name_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'DPP'"):
        _ = import_module(name).DPP

"""Importing ocpkit is cheap: the heavy optional packages stay out."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["ocpkit", "ocpkit.solvers.registry"])
def test_import_leaves_out_heavy_packages(module: str) -> None:
    heavy = ("torch", "matplotlib", "sklearn", "joblib", "PIL")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    import ocpkit

    missing = [name for name in ocpkit.__all__ if not hasattr(ocpkit, name)]
    assert missing == []
    assert sorted(set(ocpkit.__all__)) == sorted(ocpkit.__all__)

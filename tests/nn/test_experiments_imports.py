"""The experiments are clients: what they import of the library is its public API."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import ocpkit_nn.experiments

FILES = sorted(Path(ocpkit_nn.experiments.__file__).parent.glob("*.py"))
PUBLIC = ("ocpkit", "ocpkit.errors", "ocpkit_nn", "ocpkit_nn.data")
OWN = "ocpkit_nn.experiments"


def imported(path):
    """Modules of the library that a file imports from, with the name taken from each; None for a whole module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def is_public(module, name):
    if module.split(".")[0] not in ("ocpkit", "ocpkit_nn") or module == OWN or module.startswith(f"{OWN}."):
        return True
    names = getattr(import_module(module), "__all__", None) if module in PUBLIC else ()
    return name is not None and not name.startswith("_") and (names is None or name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_imports_public_names_alone(path):
    assert [pair for pair in imported(path) if not is_public(*pair)] == []


@pytest.mark.parametrize(
    ("module", "name", "public"),
    [
        ("ocpkit_nn", "DDPNOpt", True),
        ("ocpkit_nn.data", "load", True),
        ("numpy", "array", True),
        ("ocpkit_nn.experiments.run", "Run", True),
        ("ocpkit_nn.optim.ddpnopt", "DDPNOpt", False),
        ("ocpkit_nn", "_name", False),
        ("ocpkit_nn.data.dataset", "split", False),
        ("ocpkit.boundary.atomic", "write_atomically", False),
        ("ocpkit_nn", None, False),
    ],
)
def test_what_is_public(module, name, public):
    assert is_public(module, name) == public

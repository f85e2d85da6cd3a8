"""Public names of a package, said once in its stub and loaded from their modules when first used (PEP 562)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(
    package: str, *, without: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package, from the imports in its ``__init__.pyi``.

    Parameters
    ----------
    package
        Its dotted name.
    without
        Public names that ``from package import *`` leaves out.
    """
    module = sys.modules[package]
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    home_of = {alias.name: str(node.module) for node in imports for alias in node.names}
    namespace = vars(module)
    exported = sorted(home_of.keys() - set(without))

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = home_of[name]
        found = None if home == package else getattr(import_module(home), name, None)
        value = namespace[name] = import_module(f"{home}.{name}") if found is None else found
        return value

    def names() -> list[str]:
        return sorted({*namespace, *exported})

    return get, names, exported

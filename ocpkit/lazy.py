"""Public names of a package, said once in its stub and loaded from their modules when first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(package: str, *, without: Iterable[str] = ()) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package, from the imports in its ``__init__.pyi``.

    Parameters
    ----------
    package
        Its dotted name.
    without
        Public names that ``from package import *`` leaves out.
    """
    namespace = vars(sys.modules[package])

    @cache
    def homes() -> dict[str, str]:
        import ast  # read when a name is asked for, so that the import itself stays short

        stub = Path(namespace["__file__"]).with_suffix(".pyi").read_text(encoding="utf-8")
        imports = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
        return {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name == "__all__":
            return sorted(homes().keys() - set(without))
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes()[name]
        found = None if home == package else getattr(import_module(home), name, None)
        value = namespace[name] = import_module(f"{home}.{name}") if found is None else found
        return value

    def names() -> list[str]:
        return sorted({*namespace, *get("__all__")})

    return get, names

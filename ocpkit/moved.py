"""Old import paths, kept for one version: each leads to the new home and says so in a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

MOVED = {
    "ocpkit.angles": "ocpkit.problem.angles",
    "ocpkit.arrays": "ocpkit.boundary.arrays",
    "ocpkit.atomic": "ocpkit.boundary.atomic",
    "ocpkit.augmented": "ocpkit.solvers.constrained.augmented",
    "ocpkit.barrier": "ocpkit.solvers.constrained.barrier",
    "ocpkit.batch": "ocpkit.solvers.ddp.solve_batch",
    "ocpkit.bellman": "ocpkit.recursion.bellman",
    "ocpkit.box": "ocpkit.recursion.box",
    "ocpkit.check": "ocpkit.problem.check",
    "ocpkit.cli.machine": "ocpkit.boundary.machine",
    "ocpkit.closed_loop": "ocpkit.control.closed_loop",
    "ocpkit.curvature": "ocpkit.recursion.curvature",
    "ocpkit.differences": "ocpkit.autodiff.differences",
    "ocpkit.differentiable": "ocpkit.autodiff.differentiable",
    "ocpkit.engines.batched_box": "ocpkit.engines.batch.box",
    "ocpkit.engines.cache": "ocpkit.engines.c.cache",
    "ocpkit.engines.casadi": "ocpkit.engines.vm",
    "ocpkit.engines.choose": "ocpkit.solvers.choose",
    "ocpkit.engines.compiler": "ocpkit.engines.c.compiler",
    "ocpkit.engines.elementwise": "ocpkit.engines.batch.elementwise",
    "ocpkit.engines.emit": "ocpkit.engines.c.emit",
    "ocpkit.engines.export": "ocpkit.control.export",
    "ocpkit.engines.library": "ocpkit.engines.c.library",
    "ocpkit.engines.lock": "ocpkit.engines.c.lock",
    "ocpkit.engines.source": "ocpkit.engines.c.source",
    "ocpkit.engines.torch": "ocpkit.engines.batch.torch",
    "ocpkit.estimator": "ocpkit.control.estimator",
    "ocpkit.expansion": "ocpkit.recursion.expansion",
    "ocpkit.free_parameters": "ocpkit.problem.free_parameters",
    "ocpkit.functions": "ocpkit.problem.functions",
    "ocpkit.identities": "ocpkit.autodiff.identities",
    "ocpkit.integrate": "ocpkit.problem.integrate",
    "ocpkit.intermediate": "ocpkit.autodiff.intermediate",
    "ocpkit.jumps": "ocpkit.control.jumps",
    "ocpkit.layer": "ocpkit.control.torch_layer",
    "ocpkit.linalg": "ocpkit.recursion.linalg",
    "ocpkit.lqg": "ocpkit.control.lqg",
    "ocpkit.mpc": "ocpkit.control.mpc",
    "ocpkit.noise": "ocpkit.control.noise",
    "ocpkit.part": "ocpkit.problem.part",
    "ocpkit.pickling": "ocpkit.boundary.pickling",
    "ocpkit.plan_check": "ocpkit.solution.violation",
    "ocpkit.plan_feedback": "ocpkit.control.plan_feedback",
    "ocpkit.plot": "ocpkit.plotting.plot",
    "ocpkit.rows": "ocpkit.problem.constraint_rows",
    "ocpkit.scaling": "ocpkit.solution.scaling",
    "ocpkit.sensitivity": "ocpkit.solution.sensitivity",
    "ocpkit.sizes": "ocpkit.boundary.sizes",
    "ocpkit.solvers.batched_ddp": "ocpkit.solvers.ddp.batched",
    "ocpkit.solvers.compiled": "ocpkit.solvers.ddp.compiled",
    "ocpkit.solvers.compiled_augmented": "ocpkit.solvers.constrained.compiled",
    "ocpkit.solvers.finishing": "ocpkit.solvers.nlp.finishing",
    "ocpkit.solvers.gradient": "ocpkit.solvers.first_order.gradient",
    "ocpkit.solvers.ilqg": "ocpkit.control.ilqg",
    "ocpkit.solvers.interior": "ocpkit.solvers.constrained.interior_point",
    "ocpkit.solvers.multiple_shooting": "ocpkit.solvers.nlp.multiple_shooting",
    "ocpkit.solvers.natural_units": "ocpkit.solvers.verdicts.natural_units",
    "ocpkit.solvers.optimality": "ocpkit.solvers.verdicts.optimality",
    "ocpkit.solvers.pmp": "ocpkit.solvers.first_order.pmp",
    "ocpkit.solvers.registry": "ocpkit.registry",
    "ocpkit.solvers.second_order": "ocpkit.solvers.verdicts.second_order",
    "ocpkit.solvers.stationarity": "ocpkit.solvers.verdicts.stationarity",
    "ocpkit.solvers.switch": "ocpkit.solvers.ddp.switch",
    "ocpkit.solvers.units": "ocpkit.solvers.constrained.units",
    "ocpkit.solvers.watch": "ocpkit.solvers.nlp.watch",
    "ocpkit.stage": "ocpkit.problem.stage",
    "ocpkit.symbol": "ocpkit.autodiff.symbol",
    "ocpkit.tables": "ocpkit.boundary.tables",
    "ocpkit.trace": "ocpkit.problem.graphs",
    "ocpkit.trajectory": "ocpkit.solution.trajectory",
    "ocpkit.value": "ocpkit.recursion.value",
    "ocpkit_nn.checkpoint": "ocpkit_nn.training.checkpoint",
    "ocpkit_nn.convolution": "ocpkit_nn.layers.convolution",
    "ocpkit_nn.curvature": "ocpkit_nn.passes.curvature",
    "ocpkit_nn.dense_pass": "ocpkit_nn.passes.dense",
    "ocpkit_nn.eigenbases": "ocpkit_nn.passes.eigenbases",
    "ocpkit_nn.finite": "ocpkit_nn.optim.finite",
    "ocpkit_nn.fused": "ocpkit_nn.passes.fused",
    "ocpkit_nn.gains": "ocpkit_nn.passes.gains",
    "ocpkit_nn.groups": "ocpkit_nn.optim.groups",
    "ocpkit_nn.interrupt": "ocpkit_nn.training.interrupt",
    "ocpkit_nn.losses": "ocpkit_nn.layers.losses",
    "ocpkit_nn.lost_options": "ocpkit_nn.layers.lost_options",
    "ocpkit_nn.memories": "ocpkit_nn.optim.memories",
    "ocpkit_nn.metric": "ocpkit_nn.layers.metric",
    "ocpkit_nn.micro_batches": "ocpkit_nn.optim.micro_batches",
    "ocpkit_nn.modules": "ocpkit_nn.layers.modules",
    "ocpkit_nn.networks": "ocpkit_nn.training.networks",
    "ocpkit_nn.optimizers": "ocpkit_nn.training.optimizers",
    "ocpkit_nn.options": "ocpkit_nn.training.options",
    "ocpkit_nn.pmp": "ocpkit_nn.optim.pmp",
    "ocpkit_nn.record": "ocpkit_nn.training.record",
    "ocpkit_nn.replay": "ocpkit_nn.layers.replay",
    "ocpkit_nn.second_order": "ocpkit_nn.passes.second_order",
    "ocpkit_nn.separable": "ocpkit_nn.passes.separable",
    "ocpkit_nn.stage_optimizer": "ocpkit_nn.optim.stage_optimizer",
    "ocpkit_nn.stages": "ocpkit_nn.layers.stages",
    "ocpkit_nn.structure": "ocpkit_nn.layers.structure",
    "ocpkit_nn.torch_losses": "ocpkit_nn.layers.torch_losses",
    "ocpkit_nn.train": "ocpkit_nn.training.train",
    "ocpkit_nn.undo": "ocpkit_nn.optim.undo",
    "ocpkit_nn.vanishing": "ocpkit_nn.optim.vanishing",
    "ocpkit_nn.vectors": "ocpkit_nn.layers.vectors",
    "ocpkit_nn.workspace": "ocpkit_nn.passes.workspace",
}
"""The home today of each module that has moved."""


NAMES = {
    "ocpkit.control.noise": {"sample": "ocpkit.control.sampling:sample", "Sample": "ocpkit.control.sampling:Sample"},
    "ocpkit.problem.constraint_rows": {"complementarity": "ocpkit.solution.complementarity:complementarity"},
    "ocpkit.problem.free_parameters": {"chosen_parameters": "ocpkit.solution.chosen_parameters:chosen_parameters"},
    "ocpkit.problem.functions": {"problem_from_functions": "ocpkit.problem.problem:Problem.from_functions"},
    "ocpkit.recursion.expansion": {"expand": "ocpkit.engines.numpy:expand"},
}
"""The home today of each name that has left a module, by module."""


class _MovedModule:
    """Loader of the module of today under its old name; the base classes of loaders are slow to import."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])

    def get_code(self, fullname: str) -> CodeType | None:
        """Return what ``python -m ocpkit_nn.train`` runs; no other module of the table was a command."""
        command = "import sys; from ocpkit.cli.commands import app; app(['train', *sys.argv[1:]])"
        return compile(command, fullname, "exec") if fullname == "ocpkit_nn.train" else None


class _Finder:
    """Finds modules by the names that they had."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        _warn(fullname, MOVED[fullname])
        return ModuleSpec(fullname, _MovedModule())  # type: ignore[arg-type]


def install() -> None:
    """Let old import paths lead to their new homes, before other finders see files that an older version left."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def members(package: str, *homes: str) -> Callable[[str], Any]:
    """Return `__getattr__` of a package that was one module: its names are found in modules of the package.

    Parameters
    ----------
    package
        Dotted name.
    homes
        Modules, below the package, in which the names are looked for.
    """

    def get(name: str) -> Any:
        from importlib.util import find_spec  # slow to import

        submodule = name.startswith("__") or find_spec(f"{package}.{name}") is not None
        for home in () if submodule else homes:
            module = import_module(f"{package}.{home}")
            if hasattr(module, name):
                _warn(f"{package}.{name}", f"{package}.{home}.{name}")
                return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


def names(module: str) -> Callable[[str], Any]:
    """Return `__getattr__` of a module that names have left; they are loaded from their homes today."""

    def get(name: str) -> Any:
        if name not in NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        from pkgutil import resolve_name  # slow to import

        home = NAMES[module][name]
        _warn(f"{module}.{name}", home.replace(":", "."))
        return resolve_name(home)

    return get


def method(module: str, name: str) -> Callable[..., Any]:
    """Return a method that was one and is a function now; its object is the function's first argument."""

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        _warn(f"{type(self).__name__}.{call.__name__}", f"ocpkit.{name}")
        return getattr(import_module(module), name)(self, *arguments, **options)

    call.__name__ = name.partition("_")[0]
    call.__doc__ = f"Deprecated: `ocpkit.{name}`."
    return call


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} has moved to {new}; the old path goes with version 0.3", DeprecationWarning, stacklevel=3)

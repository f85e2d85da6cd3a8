"""`ocpkit doctor`: what this installation has, and what is missing for what."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ocpkit.boundary.machine import CORE, EXTRAS, package_version, processor, program
from ocpkit.cli.report import print_json
from ocpkit.engines.c.compiler import CompilerError, find_compiler

PLUGINS = {"ipopt": "solver ipopt", "fatrop": "solver fatrop", "sqpmethod": "solver sqp"}
# All that is written in C: bounds, and constraints that the augmented Lagrangian prices.
TRIAL = """
from ocpkit import DDP, AugmentedLagrangian, ProblemError, models
try:
    AugmentedLagrangian(inner=DDP(engine="c")).solve(models.get("minimum-time").build(horizon=5))
except ProblemError as error:
    raise SystemExit(str(error))
"""
TRIAL_LIMIT = 120  # seconds


@dataclass(frozen=True)
class Finding:
    """One part: what was found (None: missing), whether it works, what needs it, and how to get it."""

    name: str
    found: str | None
    needed_for: str = ""
    remedy: str = ""
    works: bool = True


def doctor_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False) -> None:
    """Show versions, compiler and devices, and what is missing for what."""
    findings = [Finding("python", platform.python_version()), Finding("machine", processor())]
    findings += [*_packages(), *_plugins(), *_tools(), _cuda(), _data()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    table = Table(box=None, header_style="bold")
    for column in ("part", "found", "needed for"):
        table.add_column(column)
    for finding in findings:
        found = escape(finding.found) if finding.found else "[yellow]missing[/]"
        found = found if finding.works else f"[yellow]does not work:[/] {found}"
        table.add_row(finding.name, found, finding.needed_for)
    console = Console()
    console.print(table)
    missing = (f"[yellow]for {f.needed_for}[/]: {escape(f.remedy)}" for f in findings if f.found is None or not f.works)
    for line in dict.fromkeys(missing):
        console.print(line, highlight=False, soft_wrap=True)


def _packages() -> list[Finding]:
    uses = {"plot": "pictures and animations", "nn": "training networks", "robots": "robots from URDF and MJCF files"}
    core = [Finding(name, package_version(name), "everything", "pip install --force-reinstall ocpkit") for name in CORE]
    extras = [
        Finding(name, package_version(name), uses[extra], f"pip install 'ocpkit[{extra}]'")
        for name, extra in EXTRAS.items()
    ]
    return core + extras


def _plugins() -> list[Finding]:
    import casadi

    remedy = "install CasADi's own wheel: pip install --force-reinstall casadi"
    return [
        Finding(f"casadi: {name}", "yes" if casadi.has_nlpsol(name) else None, use, remedy)
        for name, use in PLUGINS.items()
    ]


def _tools() -> list[Finding]:
    remedy = "install ffmpeg, or animate to .gif or .html"
    return [_compiler(), Finding("ffmpeg", program("ffmpeg", flag="-version"), ".mp4 animations", remedy)]


def _compiler() -> Finding:
    """The compiler that the engine takes, tried on a solver that it then runs."""
    name, use = "C compiler", "the compiled engine (else CasADi's virtual machine)"
    try:
        version = find_compiler().version
    except CompilerError as error:
        return Finding(name, None, use, f"{error}; install gcc or clang")
    with TemporaryDirectory(prefix="ocpkit-") as folder:  # nothing is compiled yet in this cache
        environment = {**os.environ, "OCPKIT_CACHE": folder}
        command = [sys.executable, "-c", TRIAL]
        try:  # in a process of its own, which wrong flags may crash
            tried = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TRIAL_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return Finding(name, version, use, f"a small solver took longer than {TRIAL_LIMIT} s", works=False)
    if tried.returncode < 0:
        return Finding(name, version, use, f"a compiled solver ended by signal {-tried.returncode}", works=False)
    if tried.returncode:
        return Finding(name, version, use, tried.stderr.strip().splitlines()[-1], works=False)
    return Finding(name, f"{version}, tried on a small solver", use)


def _cuda() -> Finding:
    use, remedy = "training on a GPU", "needs an NVIDIA GPU, its driver and a CUDA build of torch; the CPU works too"
    if package_version("torch") is None:
        return Finding("CUDA devices", None, use, remedy)
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("CUDA devices", ", ".join(names) or None, use, remedy)


def _data() -> Finding:
    folder, use = os.environ.get("OCPKIT_DATA", ""), "MNIST, CIFAR-10, SVHN, …"
    found = folder if folder and Path(folder).is_dir() else None
    wrong = f"OCPKIT_DATA names {folder}, which is no folder; " if folder else ""
    return Finding("OCPKIT_DATA", found, use, wrong + "set OCPKIT_DATA to the folder of the data sets")

"""How long `import ocpkit` takes beside its own dependencies: ``python -m benchmarks.import_time``.

Prints the CPU time of a fresh interpreter for each import, median of 15 alternating rounds, and their ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

ROUNDS = 15
IMPORTS = ("numpy, casadi", "ocpkit", "ocpkit; ocpkit.DDP")


def cpu_seconds(imports: str) -> float:
    """User and system time of one fresh interpreter [s]."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {imports}"], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    times: dict[str, list[float]] = {imports: [] for imports in IMPORTS}
    for _ in range(ROUNDS):
        for imports, samples in times.items():
            samples.append(cpu_seconds(imports))
    reference = statistics.median(times[IMPORTS[0]])
    for imports, samples in times.items():
        median = statistics.median(samples)
        print(f"import {imports:<22} {median * 1e3:6.0f} ms   {median / reference:.2f}x")


if __name__ == "__main__":
    main()

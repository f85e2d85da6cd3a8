"""DDP against the solvers that people use today: one run, one thread, equal optimality before speed.

    python -m benchmarks.control [--quick] [--json FILE] [--picture FILE] [--markdown FILE] [--only WORD ...]

Every system solves the same `ocpkit.Problem`, prepared once by its adapter in `systems/`. They run in turn
(A B C A B C …) on one processor core; a time is the median over rounds of each round's median, and a ratio is the
median of the round-by-round ratios. Times are processor time of the process, which other load on the machine does
not inflate. No time is compared where the costs differ by more than 1e-6 of J.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):  # read by the libraries when they are loaded
    os.environ[f"{_library}_NUM_THREADS"] = "1"

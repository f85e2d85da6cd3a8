"""Measure one case: three fresh processes in turn, several times, and the medians of what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.first_solve import cases, worker

LIMIT = 20.0  # seconds for one solve
PATIENCE = 300.0  # seconds for a whole process
Sample = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What was measured on one case: per role one sample for each round; None where the process was ended or failed."""

    name: str
    samples: dict[str, list[Sample | None]]

    def seconds(self, role: str, *parts: str, clock: str = "wall") -> float | None:
        """Median of the sum of some parts [s]; None where a round has no answer."""
        samples = self.samples[role]
        if None in samples:
            return None
        return median(sum(sample[clock][part] for part in parts) for sample in samples if sample)

    def ratio(self, ours: tuple[str, ...], theirs: tuple[str, ...]) -> float | None:
        """Median over the rounds of ocpkit's seconds over IPOPT's."""
        pairs = list(zip(self.samples["ocpkit"], self.samples["ipopt"]))
        if any(None in pair for pair in pairs):
            return None
        return median(sum(a["wall"][x] for x in ours) / sum(b["wall"][x] for x in theirs) for a, b in pairs if a and b)

    def answer(self, role: str, which: int = 0) -> Sample | None:
        """J and status of the first, second or third solve, of the last round."""
        sample = self.samples[role][-1]
        return None if sample is None else sample["solves"][which]

    @property
    def sizes(self) -> list[int] | None:
        """Largest n and m, and T."""
        sample = self.samples["ocpkit"][-1]
        return None if sample is None else sample["sizes"]

    @property
    def optimum(self) -> float | None:
        """The published J of the continuous problem."""
        return cases.get(self.name).optimum


def measure(name: str, rounds: int) -> Row:
    """Measure a case in rounds of ocpkit, IPOPT and the compiler."""
    samples: dict[str, list[Sample | None]] = {role: [] for role in worker.ROLES}
    for turn in range(rounds):
        order = ("ocpkit", "ipopt", "c") if turn % 2 == 0 else ("c", "ipopt", "ocpkit")
        for role in order:
            samples[role].append(_run(role, name))
    return Row(name, samples)


def _run(role: str, name: str) -> Sample | None:
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"OCPKIT_CACHE": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", worker.__name__, role, name, str(LIMIT)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        print(f"{role} on {name} failed: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    sample: Sample = json.loads(lines[-1])
    return sample

"""Time the present version against an older one, remember it, and fail where it has become slower.

    python -m benchmarks.history --against REVISION

Old and new run in turn, in fresh processes for each pair, so that a slow moment of the machine hits both. A timing is
*slower* where the whole confidence interval of the median ratio new/old lies above 1 + margin; then the exit status
is 1. Each run appends one line of JSON to the history.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.history.paired import CONFIDENCE, Verdict, compare, least_pairs
from benchmarks.history.timings import TIMINGS
from benchmarks.history.versions import Timer, copy, name_of, present_name, unpack
from benchmarks.machine import describe

ROOT = Path(__file__).resolve().parents[2]
HISTORY = ROOT / "docs" / "results" / "history.jsonl"
Times = dict[str, tuple[list[float], list[float]]]
"""For each name, the times of the old and of the new version, pair by pair [s]."""


def in_pairs(
    old: Callable[[], Timer], new: Callable[[], Timer], names: Sequence[str], rounds: int
) -> tuple[Times, dict[str, str]]:
    """Time both versions in turn, who is first alternating; return the times, and why others are missing in the old.

    Each round has two fresh processes, which take turns within a second or two. A round before the first, which is
    not counted, compiles what is to be compiled.

    Raises
    ------
    RuntimeError
        If the new version cannot do what is timed.
    """
    times: Times = {}
    missing: dict[str, str] = {}
    for i in range(rounds + 1):
        with old() as before, new() as after:
            for name in names:
                turns = {timer: timer.seconds(name) for timer in ((before, after) if i % 2 else (after, before))}
                if isinstance(turns[after], str):
                    raise RuntimeError(f"{name}: {turns[after]}")
                if isinstance(turns[before], str):
                    missing[name] = turns[before]
                elif i > 0:
                    for pairs, timer in zip(times.setdefault(name, ([], [])), (before, after)):
                        pairs.append(turns[timer])
    return times, missing


def entry(name: str, old: Sequence[float], new: Sequence[float], margin: float) -> dict[str, Any]:
    """Return the record of a timing."""
    ratio = compare(old, new)
    return {
        "timing": name,
        "old_ms": round(1e3 * median(old), 4),
        "new_ms": round(1e3 * median(new), 4),
        "ratio": round(ratio.median, 4),
        "low": round(ratio.low, 4),
        "high": round(ratio.high, 4),
        "verdict": ratio.verdict(margin).value,
    }


def run(repository: Path, against: str, names: Sequence[str], rounds: int, margin: float) -> dict[str, Any]:
    """Return the record of a whole comparison."""
    record: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "revision": present_name(repository),
        "against": name_of(repository, against),
        "machine": describe("numpy", "casadi"),
        "pairs": rounds,
        "margin": margin,
        "confidence": CONFIDENCE,
    }
    with tempfile.TemporaryDirectory() as scratch:
        old, new = (Path(scratch).resolve() / name for name in ("old", "new"))
        unpack(repository, against, old)
        copy(repository, new)
        times, missing = in_pairs(lambda: Timer(old), lambda: Timer(new), names, rounds)
    return record | {"timings": [entry(name, *pairs, margin) for name, pairs in times.items()], "missing": missing}


def table(record: dict[str, Any]) -> str:
    """Return the record as text."""
    machine = ", ".join(f"{key} {value}" for key, value in record["machine"].items())
    lines = [f"{record['revision']} against {record['against']}, {record['pairs']} pairs, {machine}"]
    lines += [f"{'':<26}{'old ms':>10}{'new ms':>10}{'ratio':>8}   {100 * record['confidence']:.0f} % interval"]
    for row in record["timings"]:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        numbers = f"{row['old_ms']:>10.3f}{row['new_ms']:>10.3f}{row['ratio']:>8.3f}"
        lines.append(f"{row['timing']:<26}{numbers}   {interval:<16}   {row['verdict']}")
    return "\n".join([*lines, *(f"{name}: not in the old version ({why})" for name, why in record["missing"].items())])


def main(arguments: Sequence[str] | None = None, repository: Path = ROOT) -> int:
    """Compare, print, remember; return 1 where something has become slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="REVISION", help="a commit, branch or tag")
    parser.add_argument("--rounds", type=int, default=15, help=f"pairs, at least {least_pairs()}")
    parser.add_argument("--margin", type=float, default=0.05, help="what the interval must lie above, beyond 1")
    parser.add_argument("--only", action="append", choices=[*TIMINGS], help="a timing; can be repeated")
    parser.add_argument("--history", type=Path, default=HISTORY, help="file that gets one line of JSON")
    options = parser.parse_args(arguments)
    if options.rounds < least_pairs():
        parser.error(f"--rounds {options.rounds}: an interval needs at least {least_pairs()} pairs")
    try:
        record = run(
            repository,
            options.against,
            [name for name in TIMINGS if name in (options.only or TIMINGS)],
            options.rounds,
            options.margin,
        )
    except ValueError as error:
        parser.error(str(error))
    print(table(record))
    options.history.parent.mkdir(parents=True, exist_ok=True)
    with options.history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    slower = [row["timing"] for row in record["timings"] if row["verdict"] == Verdict.SLOWER.value]
    if slower:
        print(f"slower by more than {100 * options.margin:g} % beyond noise: {'; '.join(slower)}")
    return 1 if slower else 0


if __name__ == "__main__":
    raise SystemExit(main())

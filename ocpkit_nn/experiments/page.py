"""The reports of all items in one document, from their results alone."""

from __future__ import annotations

from pathlib import Path

from ocpkit.boundary.atomic import write_atomically
from ocpkit.errors import ProblemError
from ocpkit_nn.experiments import registry
from ocpkit_nn.experiments.report import Report
from ocpkit_nn.experiments.runner import read_results

NAME = "reproduction.md"
INTRODUCTION = """# The paper's experiments

Liu, Chen & Theodorou, "DDPNOpt: Differential Dynamic Programming Neural Optimizer", ICLR 2021, experiment by
experiment, beside the numbers that the paper reports. This page is written by `ocpkit reproduce page --out {out}` from
the results in `{folder}`; every number and verdict is computed from them. A section is made anew by
`ocpkit reproduce ITEM --jobs N --out {out}`, with `OCPKIT_DATA` naming the folder of the data sets. A mean is followed
by its standard error over the seeds. A training that diverged counts as a loss of infinity and an accuracy of 0; a
difference of −∞ says that only what is subtracted diverged. Medians stand beside means that one seed can dominate.

A *twin* of a baseline is DDPNOpt with the baseline's M. Its feedback is *full* (Alg. 3), *value* (Q_ux in the value
recursion, but no second forward pass: K δx is left out) or *none* (the baseline again, by the solver's code). The
terminal curvature is *empirical* (the paper's ∇φ∇φᵀ), *ggn* (the loss's own Hessian) or *montecarlo* (random columns
of it).
"""


def write_page(out: Path) -> Path:
    """Write `reproduction.md` beside the folder of all results, redrawing the figures; return its path.

    Raises
    ------
    ProblemError
        If there are no results in `out`.
    """
    reports: dict[str, Report] = {}
    for name in registry.ITEMS:
        path = out / name / "results.json"
        if path.is_file():
            reports[name] = registry.report_of(registry.find(name), read_results(path), out / name)
    if not reports:
        raise ProblemError(f"there are no results in {out}: run an item first")
    page = out.parent / NAME
    verdicts = {name: report.verdict or "nothing to judge" for name, report in reports.items()}
    summary = "\n".join(
        f"- {registry.find(name).TITLE}: **{verdicts.get(name, 'not run yet')}**" for name in registry.ITEMS
    )
    parts = [
        INTRODUCTION.format(folder=out.name, out=out.name if out.is_absolute() else out),
        f"## Summary\n\n{summary}",
        *(report.markdown(page.parent, level=2) for report in reports.values()),
    ]
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    write_atomically(page, lambda file: file.write(text.encode()))
    return page

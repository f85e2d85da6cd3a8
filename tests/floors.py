"""Counts of how often a conditional claim was really put to the test."""

from __future__ import annotations


class Floor:
    """Counts the cases of a test in which its premise held; too few of them show nothing.

    if converged.when(solution.success):
        ...
    converged.check(10)
    """

    def __init__(self) -> None:
        self.held, self.tried = 0, 0

    def when(self, premise: bool) -> bool:
        """Count a case, and return its premise."""
        self.tried += 1
        self.held += bool(premise)
        return bool(premise)

    def check(self, least: int) -> None:
        """Fail if the premise held in fewer cases than that."""
        assert self.held >= least, f"the premise held in {self.held} of {self.tried} cases, expected {least} at least"

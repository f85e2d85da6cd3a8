"""Published optimal control problems in continuous time, and their transcriptions for ocpkit and for CasADi.

`PROBLEMS` has them by name; `discretized` makes a `Problem` of one, `as_nlp` the same as a nonlinear program.
"""

from benchmarks.suite import machines, processes, textbook
from benchmarks.suite.continuous import ContinuousProblem
from benchmarks.suite.discretized import discretized
from benchmarks.suite.nlp import Nlp, as_nlp, nlp_of

PROBLEMS = {problem.name: problem for family in (textbook, machines, processes) for problem in family.PROBLEMS}

__all__ = ["PROBLEMS", "ContinuousProblem", "Nlp", "as_nlp", "discretized", "nlp_of"]

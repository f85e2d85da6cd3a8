"""CasADi's solvers of nonlinear programs on the same problem by direct multiple shooting."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "nlp")

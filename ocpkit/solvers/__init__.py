"""Solvers: each one a choice of parts (expansion, value, curvature, globalization)."""

from ocpkit import moved

_HOMES = ("ddp.ddp", "constrained.augmented_lagrangian", "constrained.interior_point", "first_order.gradient")
__getattr__ = moved.members(__name__, *_HOMES, "first_order.pmp", "nlp.nlp")

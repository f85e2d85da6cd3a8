"""Differential dynamic programming and its kin, on one problem and on batches."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "ddp")

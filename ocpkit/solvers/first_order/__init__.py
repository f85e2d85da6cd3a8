"""Gradient descent as back-propagation, and Pontryagin's principle by successive approximations."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "adjoint")

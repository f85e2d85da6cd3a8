"""Optimal control: declare a problem once, solve it by DDP, and train networks with the same recursion.

The public names stand in ``__init__.pyi``, each with its home, and are loaded when they are first used, CasADi with
them, so that the import itself is over at once.
"""

from ocpkit import moved
from ocpkit.lazy import lazily

__version__ = "0.1.0"
__getattr__, __dir__ = lazily(__name__, without=("BatchSolution", "solve_batch", "torch_layer"))  # need torch
moved.install()

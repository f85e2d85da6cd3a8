"""Rollouts and sweeps on arrays, in NumPy (the reference), CasADi's virtual machine, C, and torch for batches."""

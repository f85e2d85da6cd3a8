"""The engine for batches: the recursion on torch tensors, one leading dimension for the problems."""

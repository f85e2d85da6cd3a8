"""Derivatives of functions of vectors: symbols that record a graph, differences of black boxes."""

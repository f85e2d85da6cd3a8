"""Tests of optimality: natural units, distance from a stationary point, minimum or saddle."""

"""Checks of what comes from outside, and whole files for what goes out: arrays, pickles, tables."""

"""Whether the code has become slower: old against new in pairs, one line of history for each run.

python -m benchmarks.history --against REVISION
"""

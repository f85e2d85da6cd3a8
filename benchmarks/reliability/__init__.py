"""What is reported of ocpkit under bad conditions: ``python -m benchmarks.reliability``.

    python -m benchmarks.reliability --count 2000 --kills 100 --markdown docs/reliability.md
    python -m benchmarks.reliability --only fuzz --first 5000

Each part is also a test in small, in tests/reliability/; this prints the long forms.
"""

"""What a turn costs, measured on a real cluster: `python -m benchmarks`.

docs/benchmarks.md says how it is measured and what was found.
"""

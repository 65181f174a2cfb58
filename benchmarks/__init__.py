"""Measurements of whole jobs: one file each, `python -m benchmarks.NAME --help`."""

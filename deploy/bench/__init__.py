"""Where model files are timed and run: on this machine, or on one that an agent speaks for."""

from deploy.bench.base import Bench, BenchFacts, Feed
from deploy.bench.local import LocalBench

__all__ = ["Bench", "BenchFacts", "Feed", "LocalBench"]

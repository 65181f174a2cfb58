"""Timing model files: interleaved, in a fresh process, as distributions with confidence intervals. No torch in here."""

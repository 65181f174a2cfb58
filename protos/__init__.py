"""The public contract, and the Python generated from it."""

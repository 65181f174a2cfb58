"""Devices that agents speak for: who they are, what waits for them, and what came of it."""

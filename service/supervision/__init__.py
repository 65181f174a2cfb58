"""Which job runs when, how far it is, and what becomes of it after a setback."""

"""How good a network is: its figure, how it is computed, and what a job amounts to."""

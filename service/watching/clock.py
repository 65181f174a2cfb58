"""How a server tells its time."""

from typing import Final

TIME_HEADER: Final = "shoal-time"
"""Trailing metadata of every unary call that was not refused: the server's time, seconds since 1970."""

"""What `shoal serve` and `shoal agent` share: sending traces where OpenTelemetry's variables ask for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)


def started_export(service_name: str) -> Callable[[], None]:
    """Starts to send spans, if that is asked for, and returns what ends it.

    Where it cannot be done, a warning says why: the variables may have been set for other programs.
    """
    from service.watching.export import TracesError, start_export

    try:
        return start_export(service_name)
    except TracesError as exc:
        _LOG.warning("no traces are sent: %s", exc)
        return _nothing


def _nothing() -> None:
    """Ends what never began."""

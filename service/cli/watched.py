"""What `shoal serve` and `shoal agent` share: sending traces where OpenTelemetry's variables ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable


def started_export(service_name: str) -> Callable[[], None]:
    """Starts to send spans, if that is asked for, and returns what ends it.

    Raises:
        InputError: It is asked for and cannot be done.
    """
    from service.watching.export import ExportError, start_export

    try:
        return start_export(service_name)
    except ExportError as exc:
        raise InputError(str(exc)) from exc

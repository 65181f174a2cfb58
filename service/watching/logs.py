"""Logs of a server, a worker or an agent: text for people, or one JSON object a line. No secret gets into either."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, Final, Literal, final

from service.watching.spans import current
from service.watching.surroundings import surroundings

Format = Literal["text", "json"]
FORMATS: Final[tuple[Format, ...]] = ("text", "json")

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_HIDDEN: Final = "[hidden]"
_SECRETS: Final = (
    # What stands in an authorization header, however it got into a message.
    re.compile(r"(?i)(?<=\bbearer )\s*[\w.~+/=-]+"),
    # Tokens that Shoal makes: shoal-agent-..., shoal-...-...
    re.compile(r"(?<=\bshoal-)[a-z]+-[\w-]{20,}"),
    # Passwords in addresses of databases and stores.
    re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"),
)


def configure(form: Format, stream: IO[str] | None = None) -> None:
    """Has this process log at INFO to a stream, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def without_secrets(text: str) -> str:
    """Returns a text with tokens and passwords taken out."""
    for secret in _SECRETS:
        text = secret.sub(_HIDDEN, text)
    return text


@final
class TextFormatter(logging.Formatter):
    """Lines for people; exceptions follow in lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the text of a record."""
        return without_secrets(super().format(record))


@final
class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    Always `time` (RFC 3339, UTC), `level`, `logger` and `message`; where known `job`, `phase`, `work` (of a
    device), `trace_id`, `span_id` and `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns a record as JSON."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **surroundings(),
        }
        place = current()
        if place is not None:
            fields |= {"trace_id": place.trace_id, "span_id": place.span_id}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: without_secrets(text) for name, text in fields.items()}, ensure_ascii=False)

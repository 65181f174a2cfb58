"""A place in a trace, as it travels between processes: W3C Trace Context, header `traceparent`, version 00."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 0x01


@dataclass(frozen=True)
class Place:
    """One span, named so that others can become its children.

    Attributes:
        trace_id: 32 hexadecimal digits, not all 0.
        span_id: 16 hexadecimal digits, not all 0.
        sampled: Whether spans of this trace are exported. What is not is numbered all the same, for the logs.
    """

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED * self.sampled:02x}"

    def child(self) -> Place:
        """Returns a new place below this one."""
        return Place(self.trace_id, new_span_id(), self.sampled)


def parse(text: str) -> Place | None:
    """Returns the place that a header names; None where it is none, as the standard wants: such a header is ignored."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Place(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def new_trace_id() -> str:
    """Returns an id that no other trace has."""
    return secrets.token_hex(16)


def new_span_id() -> str:
    """Returns an id that no other span has."""
    return secrets.token_hex(8)

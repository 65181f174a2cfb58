"""Texts that quote what is not ours, made fit for a user: names in a stranger's file, what a library says of it."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 1500
"""Characters of a message; gRPC sends it as a header, and nobody reads more."""

_OBJECT: Final = re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>")
_DIGITS: Final = re.compile(r"Exceeds the limit \((\d+) digits\) for integer string conversion.*", re.DOTALL)


def fit(message: str, longest: int = LONGEST) -> str:
    """Returns a message with what would not show escaped, and cut in the middle where it is too long."""
    if not message.isprintable():
        message = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message[: 20 * longest])
    return message if len(message) <= longest else f"{message[: longest // 2]} ... {message[-longest // 3 :]}"


def reason(exc: BaseException, longest: int = 200) -> str:
    """Returns what a library's exception says: its first line, short, without this machine's paths and addresses."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    said = _DIGITS.sub(r"a number has more than \1 digits", _OBJECT.sub("it", str(exc)))
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(exc).__name__)
    return fit(line[:longest], longest + 9 * longest)

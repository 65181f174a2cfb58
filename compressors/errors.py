"""What the engine raises. Every class says whose fault it is."""

from __future__ import annotations

from typing import Final


def reason(exc: BaseException, longest: int = 200) -> str:
    """Returns what another library's exception says, fit for a message of ours: its first line, and short."""
    said = str(exc).split("; use sys.", 1)[0]  # what Python advises on long numbers
    return next((line.strip()[:longest] for line in said.splitlines() if line.strip()), type(exc).__name__)


def _fit(message: str) -> str:
    """Returns a message with what would not show escaped, and cut in the middle where names in a file are too long."""
    whole = message if message.isprintable() else repr(message)[1:-1]
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST // 2]} ... {whole[-_LONGEST // 3 :]}"


_LONGEST: Final = 1500
"""Characters of a message; gRPC sends it as a header, and nobody reads more."""


class EngineError(Exception):
    """Base of all engine errors; the message is fit for the user, short and printable whatever it quotes."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_fit(message))


class ModelError(EngineError):
    """The caller's model cannot be used as it is."""


class UnsafeModelError(ModelError):
    """The file asks for code to be run when it is loaded."""


class UnsupportedModelError(ModelError):
    """The model is safe and valid, but holds something that Shoal cannot handle; the message names it."""


class OptionError(EngineError):
    """The caller's options do not fit; `field` names which one."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field

    def __reduce__(self) -> tuple[type[OptionError], tuple[str, str]]:
        """Lets the error cross to another process."""
        return OptionError, (self.field, str(self))


class SurgeryError(EngineError):
    """Our fault: a surgery did not do what it promised. Nothing is returned."""

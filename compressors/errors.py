"""What the engine raises. Every class says whose fault it is."""

from __future__ import annotations


def reason(exc: BaseException, longest: int = 200) -> str:
    """Returns what another library's exception says, fit for a message of ours: its first line, printable and short."""
    line = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
    return shown(line[:longest])


def shown(text: str) -> str:
    """Returns a text from a file with everything escaped that would not show in a message."""
    return text if text.isprintable() else repr(text)[1:-1]


class EngineError(Exception):
    """Base of all engine errors; the message is fit for the user."""


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


class SurgeryError(EngineError):
    """Our fault: a surgery did not do what it promised. Nothing is returned."""

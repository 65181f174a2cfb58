"""What the engine raises. Every class says whose fault it is."""

from __future__ import annotations


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

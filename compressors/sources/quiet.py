"""torch's own log of what it stumbles over in a model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOGGERS: Final = (
    "torch._subclasses.fake_tensor",
    "torch.export",
    "torch.export.pt2_archive",
    "torch.fx.experimental.symbolic_shapes",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps long traces of failed operators out of the log; whoever reads the model turns them into a short error."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled

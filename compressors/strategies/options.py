"""What the options of all strategies have in common."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base of every strategy's options: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Given = TypeVar("Given", bound=Options)


def refuse_with_parity(options: Given, own: Collection[str], *, parity: bool) -> Given:
    """Returns the options if none was given that the paper's own procedure leaves no room for.

    Args:
        options: As given.
        own: Names of what only the default mode looks at.
        parity: Whether the paper's procedure is wanted.

    Raises:
        ValueError: One was given; pydantic makes its own error of it.
    """
    clash = sorted(options.model_fields_set & set(own)) if parity else []
    if clash:
        raise ValueError(f"parity=true follows the paper, which has no {', '.join(clash)}; leave out one or the other")
    return options

"""What the commands about jobs and about files share: names, lists, moments."""

from __future__ import annotations

import itertools
from datetime import UTC
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.timestamp_pb2 import Timestamp

_T = TypeVar("_T")
_LARGEST_PAGE: Final = 500


def resource_name(collection: str, given: str) -> str:
    """Returns `COLLECTION/{id}` for an id or a whole name."""
    return given if "/" in given else f"{collection}/{given}"


def newest(pages: Callable[[int], Iterator[_T]], limit: int) -> list[_T]:
    """Returns the first so many of what a method of the client yields, asked for in pages that are no larger."""
    return list(itertools.islice(pages(min(limit, _LARGEST_PAGE)), limit))


def moment(stamp: Timestamp) -> str:
    """Returns a moment in the time zone of this machine, to the minute."""
    return stamp.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def quiet(text: str) -> None:
    """Says nothing: short commands do not talk about the server that they start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.watching import spans


@pytest.fixture
def finished() -> Iterator[list[spans.FinishedSpan]]:
    """The spans that this process finishes."""
    found: list[spans.FinishedSpan] = []
    spans.set_sink(found.append)
    yield found
    spans.set_sink(None)
    spans.set_origin(None)

from __future__ import annotations

import pytest

from service.watching.place import Place, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_header_is_read_and_written_back() -> None:
    header = f"00-{TRACE}-{SPAN}-01"
    place = parse(header)

    assert place == Place(TRACE, SPAN, sampled=True)
    assert place.traceparent == header


def test_flags_and_fields_of_later_versions_are_no_hindrance() -> None:
    assert parse(f"01-{TRACE}-{SPAN}-02-what-the-future-brings") == Place(TRACE, SPAN, sampled=False)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_is_no_place_is_ignored(header: str) -> None:
    assert parse(header) is None


def test_a_child_is_in_the_same_trace_under_an_id_of_its_own() -> None:
    parent = Place(TRACE, SPAN, sampled=True)
    children = {parent.child().span_id for _ in range(100)}

    assert len(children | {SPAN}) == 101
    assert (parent.child().trace_id, parent.child().sampled) == (TRACE, True)

from __future__ import annotations

from service.cli import table


def test_columns_are_aligned_and_the_last_one_is_free() -> None:
    assert table.lines(("A", "LONG", "REST"), [("wide cell", "1", "any length at all"), ("b", "2", "")]) == [
        "A          LONG  REST",
        "wide cell  1     any length at all",
        "b          2",
    ]

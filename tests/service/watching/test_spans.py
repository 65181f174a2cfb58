from __future__ import annotations

import asyncio

import pytest

from service.watching.place import Place
from service.watching.spans import FinishedSpan, current, set_origin, set_sink, spanning


def test_a_span_inside_another_is_its_child(finished: list[FinishedSpan]) -> None:
    with spanning("outer") as outer, spanning("inner", attributes={"count": 2}) as inner:
        assert current() == inner.place
        inner.attributes["more"] = "yes"

    first, second = finished
    assert (first.name, first.parent_id, first.attributes) == (
        "inner",
        outer.place.span_id,
        {"count": 2, "more": "yes"},
    )
    assert (second.name, second.parent_id) == ("outer", "")
    assert first.place.trace_id == second.place.trace_id
    assert second.start_ns <= first.start_ns <= first.end_ns <= second.end_ns
    assert current() is None


def test_a_span_goes_on_where_another_process_left(finished: list[FinishedSpan]) -> None:
    elsewhere = Place("1" * 32, "2" * 16, sampled=True)
    set_origin(elsewhere)
    with spanning("here"):
        pass

    assert finished[0].place.trace_id == elsewhere.trace_id
    assert finished[0].parent_id == elsewhere.span_id


def test_what_is_not_sampled_is_numbered_and_not_handed_in(finished: list[FinishedSpan]) -> None:
    with spanning("here", Place("1" * 32, "2" * 16, sampled=False)) as span:
        assert span.place.trace_id == "1" * 32

    assert not finished


def test_a_sampler_decides_on_new_traces_only(finished: list[FinishedSpan]) -> None:
    set_sink(finished.append, lambda _trace_id, name: name == "wanted")
    for name in ("wanted", "unwanted"):
        with spanning(name), spanning("inside"):
            pass

    assert [span.name for span in finished] == ["inside", "wanted"]


def test_an_exception_is_named_and_goes_on(finished: list[FinishedSpan]) -> None:
    with pytest.raises(KeyError), spanning("here"):
        raise KeyError("gone")

    assert finished[0].error == "KeyError"


async def test_tasks_side_by_side_do_not_mix(finished: list[FinishedSpan]) -> None:
    async def work(name: str) -> None:
        with spanning(name) as outer:
            await asyncio.sleep(0)
            with spanning(f"{name} inside"):
                await asyncio.sleep(0)
            assert current() == outer.place

    await asyncio.gather(work("a"), work("b"))

    by_name = {span.name: span for span in finished}
    for name in ("a", "b"):
        assert by_name[f"{name} inside"].parent_id == by_name[name].place.span_id
    assert by_name["a"].place.trace_id != by_name["b"].place.trace_id

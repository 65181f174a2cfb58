from __future__ import annotations

import pytest

from service.report import formats


def spaced(text: str) -> str:
    """Returns the text with the special characters that the page uses made plain."""
    return text.translate({0x202F: " ", 0x2212: "-", 0xD7: "x", 0x2013: "-"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93149, "0.931"),
        (12.44, "12.4"),
        (1204.4, "1,204"),
        (0.9999, "1.00"),
        (0, "0"),
        (0.00123, "0.00123"),
        (99.96, "100"),
    ],
)
def test_three_significant_digits(value: float, text: str):
    assert formats.significant(value) == text


@pytest.mark.parametrize(("count", "text"), [(None, "91.72 %"), (10_000, "91.72 %"), (360, "91.7 %")])
def test_percent_has_as_many_decimals_as_the_samples_can_tell(count: int | None, text: str):
    assert spaced(formats.percent(0.91724, count)) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(0.9, 0.88, "-2.00 points"), (0.9, 0.9123, "+1.23 points"), (0.9, 0.900001, "no change")],
)
def test_points_have_a_sign(before: float, after: float, text: str):
    assert spaced(formats.points(before, after)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.84, "0.8 s"), (59.4, "59.4 s"), (125, "2 min 05 s"), (3725, "1 h 02 min"), (3599.7, "1 h 00 min")],
)
def test_durations(value: float, text: str):
    assert spaced(formats.duration(value)) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(100, 68, "-32 %"), (100, 104.2, "+4.2 %"), (5, 5, "same"), (0, 0, "same"), (0, 3, "-"), (1, 30, "+2,900 %")],
)
def test_relative_changes(before: float, after: float, text: str):
    assert spaced(formats.change(before, after)) == text


@pytest.mark.parametrize(("value", "text"), [(999, "999"), (40_800_000, "40.8 M"), (2_304, "2.30 k"), (3e9, "3.00 G")])
def test_amounts(value: int, text: str):
    assert spaced(formats.amount(int(value))) == text


@pytest.mark.parametrize(("value", "text"), [(512, "512 B"), (1_088_389, "1.04 MiB"), (5 << 30, "5.00 GiB")])
def test_sizes(value: int, text: str):
    assert spaced(formats.size(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (0.1, "0.1"),
        ([1, 2.5], "1, 2.5"),
        ({"a": None, "b": [3]}, "a: -; b: 3"),
        ([], "-"),
        (7, "7"),
    ],
)
def test_plain_values(value: object, text: str):
    assert spaced(formats.plain(value)) == text


def test_what_was_not_measured_is_a_dash():
    assert formats.milliseconds(None) == formats.percent(None) == formats.NOTHING


@pytest.mark.parametrize(("value", "text"), [(1.5, "1.50x"), (12.34, "12.3x")])
def test_factors(value: float, text: str):
    assert spaced(formats.factor(value)) == text

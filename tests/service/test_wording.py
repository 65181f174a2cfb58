"""What is quoted of others in messages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from service.data import DataError
from service.wording import LONGEST, fit, reason


def test_what_shows_stays_as_it_is():
    assert fit("naïve 'film' \\ 100 %") == "naïve 'film' \\ 100 %"


def test_what_does_not_show_is_escaped():
    assert fit("a\nb\u202e\x00\ud800") == "a\\nb\\u202e\\x00\\ud800"


def test_what_is_too_long_keeps_its_beginning_and_its_end():
    found = fit("what is wrong " + "x" * 10_000 + "; what to do")
    assert len(found) <= LONGEST
    assert found.startswith("what is wrong")
    assert found.endswith("; what to do")


@pytest.mark.parametrize("length", [1, LONGEST, LONGEST + 1, 10**6])
def test_no_text_becomes_longer_than_a_message(length: int):
    assert len(fit("\U000e0001" * length)) <= LONGEST or length == 1


def test_errors_of_the_system_are_told_without_paths(tmp_path: Path):
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "missing").read_bytes()
    assert reason(caught.value) == "No such file or directory"


def test_objects_are_told_without_their_address():
    assert reason(ValueError(f"cannot read {io.BytesIO()!r}")) == "cannot read it"


def test_numbers_of_many_digits_are_told_without_what_python_advises():
    with pytest.raises(ValueError, match="digits") as caught:
        json.loads("9" * 5000)
    assert reason(caught.value) == "a number has more than 4300 digits"


def test_an_error_without_words_is_told_by_its_name():
    assert reason(KeyError()) == "KeyError"
    assert reason(ValueError("\n\n  second line\nthird")) == "second line"


def test_a_data_error_is_fit_whatever_it_quotes():
    message = str(DataError("data.train", "found the column \u202e" + "x" * 10**6))
    assert message.isprintable()
    assert len(message) <= LONGEST

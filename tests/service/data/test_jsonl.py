from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.data import Columns, DataError, Split, check_against, open_split
from tests.service.data.made import token_recipe


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def opened(path: Path, tmp_path: Path, columns: Columns | None = None) -> Split:
    return open_split(path, "FORMAT_UNSPECIFIED", token_recipe(tmp_path), tmp_path, "data.train", columns)


def test_texts_and_labels_by_key(tmp_path: Path):
    rows = [{"text": "good\nfilm", "label": 1}, "", {"label": 0, "id": 3, "text": "bad film"}]
    split = opened(write(tmp_path / "blob", rows), tmp_path)
    assert split.batch([0, 1])[0][0].tolist() == [[2, 4, 6, 3, 0, 0], [2, 5, 6, 3, 0, 0]]
    assert split.labels().tolist() == [1, 0]


def test_pairs_under_names_that_the_caller_gives(tmp_path: Path):
    rows = [{"q": "good", "a": "film", "y": "yes"}, {"q": "bad", "a": "film", "y": "no"}]
    split = opened(write(tmp_path / "blob", rows), tmp_path, Columns(("q", "a"), label="y"))
    assert split.batch([0])[0][0].tolist() == [[2, 4, 3, 6, 3, 0]]
    assert split.classes == ("no", "yes")
    assert split.labels().tolist() == [1, 0]


def test_lists_are_several_labels_and_torn_lines_are_broken(tmp_path: Path):
    rows: list[Any] = [{"text": "good", "labels": [index % 3, 4]} for index in range(50)]
    rows[0], rows[20] = '{"text": "good', '["good"]'
    rows.insert(0, {"text": "film", "labels": []})
    split = opened(write(tmp_path / "blob", rows), tmp_path)
    check_against(split, 6)
    assert (len(split), split.broken, split.labelled) == (49, 2, True)
    assert split.widened(6).batch([0, 1])[1].tolist() == [[0] * 6, [0, 1, 0, 0, 1, 0]]
    assert "no JSON" in split.broken_names[0]


def test_texts_that_are_missing_or_no_strings_are_broken(tmp_path: Path):
    rows: list[Any] = [{"text": "good", "label": index % 2} for index in range(60)]
    rows[3], rows[4] = {"text": 7, "label": 1}, {"label": 0}
    split = opened(write(tmp_path / "blob", rows), tmp_path)
    assert split.broken_names == ("blob, sample 4: the text is int, not a string", "blob, sample 5: no text")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (['[{"text": "good", "label": 1}]'], "no JSON object but a list; write one object to a line"),
        (["{", '  "text": "good"', "}"], "the first line of blob is no JSON"),
        ([{"words": "good", "label": 1}], "no column of texts in blob: found words, label"),
        ([{"text": "good", "label": 1.5}], "blob, sample 1 has the label 1.5"),
        ([{"text": "good", "label": {"a": 1}}], "has the label {'a': 1}"),
        (['{"a": ' + "[" * 100_000], "nested too deeply"),
        ([{"text": "good", "label": [0]}, {"text": "bad", "label": 1}], "lists for some samples and not for others"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, rows: list[Any], said: str):
    with pytest.raises(DataError) as caught:
        opened(write(tmp_path / "blob", rows), tmp_path)
    assert said in str(caught.value)

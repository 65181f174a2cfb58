from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.data import Columns, DataError, Split, open_split
from service.data.delimited import open_delimited, split
from service.data.errors import BrokenSampleError
from tests.service.data.made import PLAIN, token_recipe

ANY = "FORMAT_UNSPECIFIED"


def texts(file: Path, columns: Columns | None = None) -> tuple[list[Any], list[int]]:
    found, labelling = open_delimited([file], columns or Columns(), "data.train")
    return found.load(range(len(found))), labelling.labels.tolist()


def write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def opened(path: Path, tmp_path: Path, columns: Columns | None = None) -> Split:
    return open_split(path, ANY, token_recipe(tmp_path), tmp_path, "data.train", columns)


cells = st.text(st.sampled_from('ab",;\t\n\r é"'), max_size=8)
records = st.lists(st.tuples(cells, st.integers(0, 3)), min_size=1, max_size=12)


@given(records, st.sampled_from([",", "\t", ";"]), st.sampled_from(["\n", "\r\n"]))
def test_reads_what_the_csv_module_writes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], separator: str, end: str
):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    file = write(tmp_path_factory.mktemp("d") / "blob", out.getvalue())
    found, labels = texts(file)
    wanted = [(text,) if text.strip() else "broken" for text, _ in rows]
    assert ["broken" if isinstance(text, BrokenSampleError) else text for text in found] == wanted
    assert labels == [label for _, label in rows]


@given(st.lists(st.text(st.sampled_from('ab",c '), max_size=6), min_size=1, max_size=5))
def test_fields_equal_those_of_the_csv_module(fields: list[str]):
    line = ",".join(fields)
    assert split(line, ",") == (next(csv.reader([line])) or [""])


def test_ids_of_texts_and_labels(tmp_path: Path):
    file = write(tmp_path / "blob", 'label,text\n1,"good, very good film"\n0,bad film\n')
    found = opened(file, tmp_path)
    assert found.batch([0, 1])[0][0].tolist() == [[2, 4, 1, 8, 4, 3], [2, 5, 6, 3, 0, 0]]
    assert found.labels().tolist() == [1, 0]


@pytest.mark.parametrize(
    "names", ["sentence1,sentence2", "premise,hypothesis", "question,sentence", "Text_A,Text_B", "question1,question2"]
)
def test_pairs(tmp_path: Path, names: str):
    found = opened(write(tmp_path / "blob", f"id,{names},label\n7,good,bad film,1\n8,a,a,0\n"), tmp_path)
    ids, mask, segments = found.batch([0])[0]
    assert ids.tolist() == [[2, 4, 3, 5, 6, 3]]
    assert mask.tolist() == [[1] * 6]
    assert segments.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_columns_that_the_caller_names(tmp_path: Path):
    file = write(tmp_path / "blob", "text,title,body,stars,label\nx,good,film,2,0\nx,bad,film,0,0\n")
    assert texts(file, Columns(("title",), label="stars")) == ([("good",), ("bad",)], [2, 0])
    assert texts(file, Columns(("body", "title"), label="stars"))[0] == [("film", "good"), ("film", "bad")]


def test_tabs_without_any_meaning_of_quotes(tmp_path: Path):
    rows = ['"good film\t1', 'the "best" film\t0', 'film"\t1', '"""\t0', "bad\t1", '""\t0']
    file = write(tmp_path / "blob", "\n".join(["sentence\tlabel", *rows]))
    found, labels = texts(file)
    assert found == [(row.split("\t")[0],) for row in rows]
    assert labels == [1, 0, 1, 0, 1, 0]


def test_names_as_labels_and_missing_ones(tmp_path: Path):
    file = write(tmp_path / "blob", "text,label\na,pos\nb,neg\nc,\n")
    found, labelling = open_delimited([file], Columns(), "data.train")
    assert labelling.classes == ("neg", "pos")
    assert labelling.labels.tolist() == [1, 0, -1]
    assert len(found) == 3


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path: Path):
    file = write(tmp_path / "blob", b"\xef\xbb\xbftext,label\r\n\r\ngood,1\r\n\r\nbad,0\r\n")
    assert texts(file) == ([("good",), ("bad",)], [1, 0])


def test_several_files_of_one_split(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write(folder / "part-0.csv", "text,label\ngood,1\n")
    write(folder / "part-1.csv", "text,label\nbad,0\nfilm,1\n")
    (folder / "README.md").write_text("About, this")
    assert opened(folder, tmp_path).labels().tolist() == [1, 0, 1]


def test_splits_in_one_folder(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write(folder / "train.csv", "text,label\ngood,1\nbad,0\nfilm,1\n")
    write(folder / "dev.csv", "text,label\nbad,0\nfilm,1\n")
    for field, count in (("data.train", 3), ("data.validation", 2)):
        assert len(open_split(folder, ANY, token_recipe(tmp_path), tmp_path, field)) == count


def test_torn_records_are_counted_and_named(tmp_path: Path):
    rows = [f"good film,{index % 2}" for index in range(60)]
    rows[7], rows[9] = "good, film,1", "good"
    found = opened(write(tmp_path / "blob", "\n".join(["text,label", *rows])), tmp_path)
    assert (len(found), found.broken, found.labelled) == (58, 2, True)
    assert found.broken_names == (
        "blob, sample 8: 3 fields, and the header has 2",
        "blob, sample 10: 1 fields, and the header has 2",
    )


def test_many_torn_records_are_refused(tmp_path: Path):
    file = write(tmp_path / "blob", "text,label\n" + "good, film,1\nbad film,0\n" * 5)
    with pytest.raises(DataError, match=r"5 of 10 texts cannot be used, at most 5%.*3 fields"):
        opened(file, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\n", "a header and no records"),
        ('text,label\n"good,1\nbad,0\n', "the quotes of the record at byte 11 are never closed"),
        ("words,label\ngood,1\n", "no column of texts in blob: found words, label"),
        ("text,text\ngood,1\n", "two columns of the same name"),
        ("good film,1\nbad film,0\n", "no column of texts in blob: found good film, 1"),
        ("text,label\ngood,0.5\nbad,1\n", "sample 1 has the label '0.5'"),
        ("text,label\ngood,1\nbad,1\n", "one class (1)"),
        ("text,label\ngood,-3\nbad,1\n", "the label -3"),
        (b"text,l\xffbel\ngood,1\n", "none of the known formats"),
        ("text,label\ngood,1\n".encode("utf-16"), "none of the known formats"),
        (b"text,label\n" + b"x" * (17 * 2**20) + b",1\n", "a line of more than 16777216 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: str | bytes, said: str):
    with pytest.raises(DataError) as caught:
        opened(write(tmp_path / "blob", content), tmp_path)
    assert said in str(caught.value)


def test_headers_that_differ_are_refused(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write(folder / "0.csv", "text,label\ngood,1\n")
    write(folder / "1.csv", "label,text\n0,bad\n")
    with pytest.raises(DataError, match=r"1\.csv has the header label, text and the first file text, label"):
        opened(folder, tmp_path)


def test_texts_for_a_model_of_images_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"holds texts, and the model takes samples of shape \[3, 8, 8\]"):
        open_split(write(tmp_path / "blob", "text,label\ngood,1\n"), ANY, PLAIN, tmp_path, "data.train")

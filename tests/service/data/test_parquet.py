"""Parquet, as Hugging Face writes it and otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from service.data import DataError, open_split
from tests.service.data.made import PLAIN, encoded, pixels, png, write_parquet
from tests.service.data.opened import ANY, expected, opened, refusal

CLASS_LABEL = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def test_parquet_with_hugging_face_columns(tmp_path: Path):
    table = {"image": encoded(20), "label": [0, 1] * 10}
    split = opened(write_parquet(tmp_path / "x", table, CLASS_LABEL), tmp_path)
    assert split.classes == ("cat", "dog")
    (inputs,), labels = split.batch([19, 4, 4])
    assert torch.equal(inputs, expected([19, 4, 4]))
    assert labels.tolist() == [1, 0, 0]


def test_parquet_with_plain_bytes_and_other_names(tmp_path: Path):
    table = {"img": [cell["bytes"] for cell in encoded(4)], "labels": [3, 1, None, 1]}
    split = opened(write_parquet(tmp_path / "x", table), tmp_path)
    assert split.labels().tolist() == [3, 1, -1, 1]
    assert torch.equal(split[1][0][0], expected([1])[0])


def test_parquet_with_names_as_labels(tmp_path: Path):
    split = opened(write_parquet(tmp_path / "x", {"image": encoded(3), "label": ["dog", "cat", "dog"]}), tmp_path)
    assert split.classes == ("cat", "dog")
    assert split.labels().tolist() == [1, 0, 1]


def test_parquet_without_labels(tmp_path: Path):
    assert opened(write_parquet(tmp_path / "x", {"image": encoded(3)}), tmp_path).labels().tolist() == [-1] * 3


def test_parquet_in_a_folder_whose_name_is_a_pattern(tmp_path: Path):
    folder = tmp_path / "we[i]rd*"
    folder.mkdir()
    write_parquet(folder / "a.parquet", {"image": encoded(2), "label": [0, 1]})
    assert len(opened(folder, tmp_path)) == 2


def test_parquet_never_opens_the_path_that_a_row_names(tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(png(pixels(0)))
    rows = [*encoded(40), {"bytes": None, "path": str(tmp_path / "secret.png")}]
    split = opened(write_parquet(tmp_path / "x", {"image": rows}), tmp_path)
    assert split.broken == 1
    assert "embed" in split.broken_names[0]


def test_parquet_without_an_image_column_names_what_it_found(tmp_path: Path):
    message = refusal(write_parquet(tmp_path / "x", {"picture": [b"1"], "label": [0]}), tmp_path)
    assert "picture (binary)" in message
    assert "'image'" in message


def test_parquet_with_fractional_labels_is_refused(tmp_path: Path):
    message = refusal(write_parquet(tmp_path / "x", {"image": encoded(2), "label": [0.5, 1.0]}), tmp_path)
    assert "double" in message


def test_empty_parquet_is_refused(tmp_path: Path):
    import pyarrow as pa

    message = refusal(write_parquet(tmp_path / "x", {"image": pa.array([], pa.binary())}), tmp_path)
    assert "no rows" in message


def test_truncated_parquet_is_refused(tmp_path: Path):
    file = write_parquet(tmp_path / "x", {"image": encoded(20), "label": [0, 1] * 10})
    file.write_bytes(file.read_bytes()[:2000])
    assert "cannot read Parquet" in refusal(file, tmp_path)


def test_of_a_folder_with_several_splits_of_parquet_the_right_files_are_taken(tmp_path: Path):
    (tmp_path / "d").mkdir()
    for name, count in (("train-00000-of-00002", 2), ("train-00001-of-00002", 3), ("test", 4)):
        table = {"image": encoded(count), "label": [0, *[1] * (count - 1)]}
        write_parquet(tmp_path / "d" / f"{name}.parquet", table)
    assert len(opened(tmp_path / "d", tmp_path)) == 5
    assert len(open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation")) == 4
    with pytest.raises(DataError, match=r"several splits \(test, train\); give the files of one"):
        open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data")

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from service.data import Columns, DataError, Split, check_against, open_split
from tests.service.data.made import (
    PLAIN,
    encoded,
    pixels,
    token_recipe,
    write_arrow,
    write_parquet,
    zip_of,
)

ANY = "FORMAT_UNSPECIFIED"
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def opened(path: Path, tmp_path: Path, columns: Columns | None = None, stored_as: Any = ANY) -> Split:
    return open_split(path, stored_as, PLAIN, tmp_path, "data.train", columns)


def refusal(path: Path, tmp_path: Path, columns: Columns | None = None) -> str:
    with pytest.raises(DataError) as caught:
        opened(path, tmp_path, columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def truth(*seeds: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(seed)).permute(2, 0, 1) / 255 for seed in seeds])


def table(count: int, first: int = 0, **columns: Any) -> pa.Table:
    return pa.table({"image": encoded(first + count)[first:], "label": [index % 2 for index in range(count)]} | columns)


def saved(folder: Path, **count: int) -> Path:
    """Saves splits as `datasets` does: one folder each, or the folder itself for one called `only`."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    splits = {
        name: datasets.Dataset.from_dict(
            {"image": encoded(number), "label": [index % 2 for index in range(number)]}, features=features
        )
        for name, number in count.items()
    }
    if "only" in splits:
        splits["only"].save_to_disk(str(folder), num_shards=3)
    else:
        datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


# Arrow


def test_what_datasets_saves_is_read_in_its_order(tmp_path: Path):
    split = opened(saved(tmp_path / "d", only=20), tmp_path)
    assert split.classes == ("cat", "dog")
    assert split.labels().tolist() == [0, 1] * 10
    assert torch.equal(split.batch([19, 0, 7])[0][0], truth(19, 0, 7))


@pytest.mark.parametrize("packed", [False, True])
def test_a_saved_dictionary_gives_each_split(tmp_path: Path, packed: bool):
    path = saved(tmp_path / "d", train=20, validation=12, test=3)
    path = zip_of(path, tmp_path / "blob") if packed else path
    for field, count in (("data.train", 20), ("data.validation", 12)):
        assert len(open_split(path, ANY, PLAIN, tmp_path, field)) == count


def test_what_datasets_caches_beside_the_data_is_not_read(tmp_path: Path):
    folder = saved(tmp_path / "d", only=20)
    write_arrow(folder / "cache-1234.arrow", table(5))
    assert len(opened(folder, tmp_path)) == 20
    (folder / "state.json").unlink()
    assert len(opened(folder, tmp_path)) == 20


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_plain_arrow(tmp_path: Path, stream: bool, compression: str | None):
    file = write_arrow(tmp_path / "blob", table(20), stream=stream, compression=compression)
    split = opened(file, tmp_path, stored_as="FORMAT_ARROW")
    assert torch.equal(split.batch([19, 0, 7])[0][0], truth(19, 0, 7))
    copies = list(tmp_path.rglob("rows.arrow"))
    assert len(copies) == (0 if compression is None else 1)


def test_class_names_from_the_file_beside(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write_arrow(folder / "data-00000-of-00001.arrow", table(4))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    assert opened(folder, tmp_path).classes == ("cat", "dog")


def test_shards_whose_columns_are_in_another_order_or_type(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write_arrow(folder / "0.arrow", table(4))
    other = table(4, 4).select(["label", "image"])
    write_arrow(folder / "1.arrow", other.set_column(0, "label", pa.array([1, 1, 0, 0], pa.int8())))
    split = opened(folder, tmp_path)
    assert split.labels().tolist() == [0, 1, 0, 1, 1, 1, 0, 0]
    assert torch.equal(split.batch([4, 3])[0][0], truth(4, 3))


def test_dictionary_columns(tmp_path: Path):
    names = pa.array(["dog", "cat", "dog"]).dictionary_encode()
    split = opened(write_arrow(tmp_path / "blob", table(3, label=names)), tmp_path)
    assert split.labels().tolist() == [1, 0, 1]


def test_truncated_arrow_is_refused(tmp_path: Path):
    file = write_arrow(tmp_path / "blob", table(20))
    file.write_bytes(file.read_bytes()[:3000])
    assert "cannot read Arrow (blob)" in refusal(file, tmp_path)


def test_offsets_that_point_outside_of_the_file_are_refused(tmp_path: Path):
    good = write_arrow(tmp_path / "good", pa.table({"image": [b"x" * 16] * 7, "label": [0, 1, 0, 1, 0, 1, 0]}))
    offsets = np.arange(0, 8 * 16, 16, dtype=np.int32).tobytes()
    content = good.read_bytes()
    assert content.count(offsets) == 1
    hostile = np.array([0, 16, 32, 48, 64, 80, 96, 2**30], dtype=np.int32).tobytes()
    (tmp_path / "blob").write_bytes(content.replace(offsets, hostile))
    assert "cannot read Arrow (blob)" in refusal(tmp_path / "blob", tmp_path)


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "missing.arrow", "notes.txt", 7])
def test_state_that_lists_other_files_is_refused(tmp_path: Path, name: Any):
    write_arrow(tmp_path / "secret.arrow", table(4))
    folder = saved(tmp_path / "d", only=4)
    (folder / "notes.txt").write_text("hello")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert "state.json" in refusal(folder, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"_data_files": 3}', "[" * 100_000])
def test_damaged_state_is_passed_over(tmp_path: Path, content: str):
    folder = saved(tmp_path / "d", only=4)
    (folder / "state.json").write_text(content)
    (folder / "dataset_info.json").write_text(content)
    assert len(opened(folder, tmp_path)) == 4


def test_parquet_and_arrow_in_one_folder_are_not_mixed(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write_arrow(folder / "a.arrow", table(4))
    write_parquet(folder / "b.parquet", {"image": encoded(3), "label": [0, 1, 0]})
    assert len(opened(folder, tmp_path)) == 3


def test_columns_that_the_caller_names(tmp_path: Path):
    columns = {"image": [b"?"] * 4, "photo": encoded(4), "label": [0] * 4, "species": [0, 1, 2, 3]}
    file = write_parquet(tmp_path / "blob", columns)
    split = opened(file, tmp_path, Columns(image="photo", label="species"))
    assert split.labels().tolist() == [0, 1, 2, 3]
    assert torch.equal(split.batch([2])[0][0], truth(2))


@pytest.mark.parametrize("columns", [Columns(image="nowhere"), Columns(label="nowhere"), Columns(image="label")])
def test_columns_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path, columns: Columns):
    message = refusal(write_arrow(tmp_path / "blob", table(4)), tmp_path, columns)
    assert "image" in message
    assert "label" in message


# Several labels


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([[0, 2], [], [4], [1, 3]], pa.list_(pa.int64())),
        ([[0, 2], [], [4], [1, 3]], pa.large_list(pa.int8())),
        ([[1, 0, 1, 0, 0], [0] * 5, [0, 0, 0, 0, 1], [0, 1, 0, 1, 0]], pa.list_(pa.int64())),
        ([[1, 0, 1, 0, 0], [0] * 5, [0, 0, 0, 0, 1], [0, 1, 0, 1, 0]], pa.list_(pa.float32(), 5)),
    ],
)
@pytest.mark.parametrize("arrow", [False, True])
def test_lists_are_several_labels(tmp_path: Path, labels: list[list[int]], kind: pa.DataType, arrow: bool):
    columns = {"image": encoded(4), "label": pa.array(labels, kind)}
    file = tmp_path / "blob"
    path = write_arrow(file, pa.table(columns)) if arrow else write_parquet(file, columns)
    split = opened(path, tmp_path)
    check_against(split, 5)
    (_, targets), one = split.widened(5).batch([2, 0, 3, 1]), split.widened(5)[0][1]
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0, 0, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [0] * 5]
    assert isinstance(one, torch.Tensor)
    assert one.tolist() == [1, 0, 1, 0, 0]


def test_names_of_a_list_of_classes(tmp_path: Path):
    features = {"label": {"feature": {"names": ["x", "y", "z"], "_type": "ClassLabel"}, "_type": "Sequence"}}
    columns = {"image": encoded(2), "label": [[0, 2], [1]]}
    split = opened(write_parquet(tmp_path / "blob", columns, features), tmp_path)
    assert split.classes == ("x", "y", "z")
    assert split.batch([0])[1].tolist() == [[1, 0, 1]]


def test_vectors_of_another_length_than_the_outputs_are_refused(tmp_path: Path):
    file = write_parquet(tmp_path / "blob", {"image": encoded(2), "label": [[0, 1, 0], [1, 0, 1]]})
    with pytest.raises(DataError, match="vectors over 3 classes and the model has 4 outputs"):
        check_against(opened(file, tmp_path), 4)


def test_vectors_of_other_numbers_are_refused(tmp_path: Path):
    labels = pa.array([[0.0, 0.5], [1.0, 0.0]], pa.list_(pa.float64(), 2))
    message = refusal(write_parquet(tmp_path / "blob", {"image": encoded(2), "label": labels}), tmp_path)
    assert "other values than 0 and 1" in message


# Texts


@pytest.mark.parametrize("arrow", [False, True])
def test_texts_in_a_column(tmp_path: Path, arrow: bool):
    columns = {"text": ["good film", "bad film", "a very good film"], "label": [1, 0, 1]}
    file = tmp_path / "blob"
    path = write_arrow(file, pa.table(columns)) if arrow else write_parquet(file, columns)
    split = open_split(path, ANY, token_recipe(tmp_path, 6), tmp_path, "data.train")
    ids, mask, segments = split.batch([1, 2])[0]
    assert ids.tolist() == [[2, 5, 6, 3, 0, 0], [2, 7, 8, 4, 6, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert segments.tolist() == [[0] * 6] * 2


def test_missing_texts_are_broken(tmp_path: Path):
    columns = {"text": ["good film"] * 30 + [None] + ["bad film"] * 30, "label": [1] * 31 + [0] * 30}
    split = open_split(write_parquet(tmp_path / "blob", columns), ANY, token_recipe(tmp_path), tmp_path, "data.train")
    assert (len(split), split.broken, split.broken_names) == (60, 1, ("row 30: no text",))


def test_a_column_that_holds_no_texts_is_refused(tmp_path: Path):
    file = write_parquet(tmp_path / "blob", {"text": [1, 2], "label": [0, 1]})
    with pytest.raises(DataError, match="column 'text' in blob is int64; texts must be strings"):
        open_split(file, ANY, token_recipe(tmp_path), tmp_path, "data.train")


def test_images_where_texts_are_wanted_are_refused_with_the_columns_found(tmp_path: Path):
    with pytest.raises(DataError, match=r"no column of texts in blob: found image, label; .*--text-column"):
        open_split(write_arrow(tmp_path / "blob", table(4)), ANY, token_recipe(tmp_path), tmp_path, "data.train")

"""What the fuzz test found, one by one."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.data import DataError, Split, TokenRecipe, archives, load_tokenizer, open_split, rows
from service.data.opening import Recipe
from tests.service.data.made import PLAIN, pixels, png, token_inputs, token_recipe, write_folders, write_parquet

WRONG_HEADERS = ("{" * 9000, "[" * 9000, "1 + 1", "{'descr': 3}", "{'descr': '|u1', 'fortran_order': 1}", "9" * 9000)


def opened(path: Path, tmp_path: Path, recipe: Recipe = PLAIN) -> Split:
    return open_split(path, "FORMAT_UNSPECIFIED", recipe, tmp_path, "data.train")


def refusal(path: Path, tmp_path: Path, recipe: Recipe = PLAIN) -> str:
    with pytest.raises(DataError) as caught:
        opened(path, tmp_path, recipe)
    message = str(caught.value)
    assert message.isprintable()
    assert str(tmp_path) not in message
    assert " at 0x" not in message
    return message


def npz(file: Path, **arrays: Any) -> Path:
    with file.open("wb") as out:
        np.savez(out, **arrays)
    return file


def npz_of(file: Path, header: str, content: bytes = b"") -> Path:
    text = header.encode() + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)
    return file


def thin(file: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(file, "PNG")


# Arrays


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_an_array_whose_header_is_no_header(tmp_path: Path, header: str):
    assert "header that cannot be read" in refusal(npz_of(tmp_path / "blob", header), tmp_path)


@pytest.mark.parametrize("shape", ["(20, 8, 8, 3)", "(2**40, 8)", "(1099511627776, 8, 8, 3)", "(-1, 8, 8, 3)"])
def test_an_array_that_holds_less_than_it_says(tmp_path: Path, shape: str):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    said = refusal(npz_of(tmp_path / "blob", header, bytes(100)), tmp_path)
    assert "holds 100 bytes" in said or "header that cannot be read" in said


@pytest.mark.parametrize("shape", ["(True, 8, 8, 3)", "(1180591620717411303424, 0)", "('a',)", "(24.0, 8)"])
def test_an_array_of_a_shape_that_is_none(tmp_path: Path, shape: str):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    assert "header that cannot be read" in refusal(npz_of(tmp_path / "blob", header, bytes(9999)), tmp_path)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_samples_without_a_pixel(tmp_path: Path, kind: Any):
    images = np.zeros((4, 0, 8, 3), kind)
    assert "[0, 8, 3], which holds nothing" in refusal(npz(tmp_path / "blob", images=images), tmp_path)


def test_arrays_that_would_be_too_large_once_resized(tmp_path: Path):
    images = np.zeros((2, 1, 20_000_000), np.uint8)
    assert "160000000 x 8 pixels once resized" in refusal(npz(tmp_path / "blob", images=images), tmp_path)


def test_feeds_without_a_value(tmp_path: Path):
    values = {spec.name: np.zeros((0, 6), np.int64) for spec in token_inputs()}
    assert "no samples" in refusal(npz(tmp_path / "blob", **values), tmp_path, TokenRecipe(token_inputs()))


def test_arrays_that_are_nothing_but_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    np.savez_compressed(tmp_path / "blob.npz", images=np.zeros((40_000, 8, 8, 3), np.uint8))
    assert "unpacks to 7680128 bytes, at most" in refusal(tmp_path / "blob.npz", tmp_path)


# Archives


def test_two_members_of_one_name_are_told_without_a_path(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "blob", "w") as archive:
        archive.writestr("a/1.png", png(pixels(0)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/1.png", png(pixels(1)))
    assert "zip member 'a/1.png' is there twice" in refusal(tmp_path / "blob", tmp_path)


@pytest.mark.parametrize("names", [("a", "a/b"), ("n" * 300,), ("x/" * 3000 + "y",)])
def test_names_that_no_disk_takes_are_told_without_a_path(tmp_path: Path, names: tuple[str, ...]):
    with zipfile.ZipFile(tmp_path / "blob", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert "cannot read blob as a zip archive" in refusal(tmp_path / "blob", tmp_path)


# Images


def test_an_image_that_would_be_too_large_once_resized_is_passed_over(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 30, "b": 30})
    thin(root / "a" / "thin.png", (20_000_000, 1))
    split = opened(root, tmp_path)
    assert (len(split), split.broken) == (60, 1)
    assert "the image has 160000000 x 8 pixels once resized, at most" in split.broken_names[0]


def test_an_image_that_is_none_is_told_without_objects_of_ours(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 30, "b": 30})
    (root / "a" / "none.png").write_bytes(b"no image")
    (name,) = opened(root, tmp_path).broken_names
    assert name == "a/none.png: no image that can be read; wanted one of PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM"


# Texts and tables


def test_a_number_that_python_does_not_read_is_one_broken_text(tmp_path: Path):
    lines = ['{"text": "good", "label": 1}', '{"text": "bad", "label": 0}'] * 20
    (tmp_path / "blob").write_text("\n".join([*lines, f'{{"text": {"9" * 5000}, "label": 0}}']))
    (name,) = opened(tmp_path / "blob", tmp_path, token_recipe(tmp_path)).broken_names
    assert name.endswith("no JSON that anybody reads: a number has more than 4300 digits")


@pytest.mark.parametrize("name", ["\u202e", "x\x00y", "a\x1b[2J", "long " * 1000])
def test_names_of_columns_are_shown_so_that_they_show(tmp_path: Path, name: str):
    write_parquet(tmp_path / "blob", {name: [b"x"], "other": [1]})
    assert len(refusal(tmp_path / "blob", tmp_path)) < 400


def test_twice_the_same_column_of_many(tmp_path: Path):
    header = ",".join(["text", *(f"column{index}" for index in range(1000)), "text"])
    (tmp_path / "blob").write_text(f"{header}\ngood\n")
    assert "and 990 more; rename one" in refusal(tmp_path / "blob", tmp_path, token_recipe(tmp_path))


@pytest.mark.parametrize("name", ["text", "label", "other"])
def test_a_table_with_two_columns_of_one_name(tmp_path: Path, name: str):
    columns = {"text": ["good"], "label": [0], "other": [1]}
    table = pa.Table.from_arrays([pa.array(values) for values in (*columns.values(), columns[name])], [*columns, name])
    pq.write_table(table, tmp_path / "blob")
    assert f"two columns of the same name ({name})" in refusal(tmp_path / "blob", tmp_path, token_recipe(tmp_path))


def test_rows_that_are_the_same_text_over_and_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    pq.write_table(pa.table({"text": ["good film " * 1000] * 5000, "label": [0, 1] * 2500}), tmp_path / "blob")
    assert "more than images or texts do" in refusal(tmp_path / "blob", tmp_path, token_recipe(tmp_path))


def test_a_few_long_texts_that_stand_for_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 50_000), pa.array(["good " * 20_000, "bad"]))
    pq.write_table(pa.table({"text": texts, "label": [0, 1] * 50_000}), tmp_path / "blob")
    assert "more than images or texts do" in refusal(tmp_path / "blob", tmp_path, token_recipe(tmp_path))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.arrow")) < 64 << 20


def test_folded_texts_are_the_same_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "_PIECE_BYTES", 50)
    texts = pa.array(["good film", "bad film", "a"] * 10)
    recipe = token_recipe(tmp_path)
    for name, column in (("plain", texts), ("folded", texts.dictionary_encode())):
        pq.write_table(pa.table({"text": column, "label": [0, 1, 0] * 10}), tmp_path / name)
    plain, folded = (opened(tmp_path / name, tmp_path, recipe).batch(range(30))[0][0] for name in ("plain", "folded"))
    assert plain.tolist() == folded.tolist()


def test_a_label_that_is_larger_than_any_number_of_ours(tmp_path: Path):
    labels = pa.array([2**64 - 1, 0] * 10, pa.uint64())
    pq.write_table(pa.table({"text": ["good"] * 20, "label": labels}), tmp_path / "blob")
    said = refusal(tmp_path / "blob", tmp_path, token_recipe(tmp_path))
    assert "column 'label' holds a number that is no class" in said


@pytest.mark.parametrize("settings", [{}, {"model_type": "A" * 5000}, {"model_type": 3}, {"tokenizer_class": ""}])
def test_a_vocabulary_of_which_nothing_says_what_it_is(tmp_path: Path, settings: dict[str, Any]):
    pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("[UNK]\ngood\n")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="states no model_type that is known"):
        load_tokenizer(tmp_path, 6)


def test_damage_is_told_in_one_line_that_shows(tmp_path: Path):
    out = io.BytesIO(write_parquet(tmp_path / "good", {"image": [b"x"]}).read_bytes())
    broken = bytearray(out.getvalue())
    length = int.from_bytes(broken[-8:-4], "little")
    for place in range(len(broken) - 8 - length, len(broken) - 8):
        broken[place] ^= 0x0F
    (tmp_path / "blob").write_bytes(bytes(broken))
    assert "cannot read Parquet (blob)" in refusal(tmp_path / "blob", tmp_path)

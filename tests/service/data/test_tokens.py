from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressors.graph import TensorSpec
from service.data import DataError, Split, TokenRecipe, load_tokenizer, open_split, takes_tokens
from tests.service.data.made import WORDS, token_inputs, token_recipe, write_folders, write_tokenizer


def whole(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, torch.int64)


def encode(folder: Path, texts: list[tuple[str, ...]], length: int = 6) -> list[list[list[int]]]:
    tokenizer = load_tokenizer(folder, length)
    assert tokenizer is not None
    return [np.asarray(rows).tolist() for rows in tokenizer.encode(texts)]


# The recipe


@pytest.mark.parametrize(
    "names",
    [
        ("input_ids", "attention_mask", "token_type_ids"),
        ("attention_mask", "input_ids"),
        ("token_type_ids", "attention_mask", "input_ids"),
        ("input_ids",),
    ],
)
def test_inputs_come_in_the_order_of_the_network(tmp_path: Path, names: tuple[str, ...]):
    found = token_recipe(tmp_path, 5, *names).tokenised([("good", "film")])
    wanted = {"input_ids": [2, 4, 3, 6, 3], "attention_mask": [1] * 5, "token_type_ids": [0, 0, 0, 1, 1]}
    assert [values.tolist()[0] for values in found] == [wanted[name] for name in names]
    assert all(values.dtype == torch.int64 for values in found)


@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_texts_are_cut_and_padded_to_the_input_s_length(tmp_path: Path, length: int):
    for values in token_recipe(tmp_path, length).tokenised([("good bad film a very good film",), ("a",), ("",)]):
        assert values.shape == (3, length)


def test_a_tokenizer_of_another_network_is_refused(tmp_path: Path):
    spec = TensorSpec("input_ids", (6,), torch.int64, 0, 5)
    recipe = TokenRecipe((spec,), load_tokenizer(write_tokenizer(tmp_path), 6))
    recipe.tokenised([("good",)])
    with pytest.raises(DataError, match="gives the token 6, and the network's table of tokens has 5 rows"):
        recipe.tokenised([("film",)])


def test_segments_that_the_network_does_not_know_are_the_last_one(tmp_path: Path):
    specs = (whole("input_ids", 6), TensorSpec("token_type_ids", (6,), torch.int64, 0, 1))
    recipe = TokenRecipe(specs, load_tokenizer(write_tokenizer(tmp_path), 6))
    assert recipe.tokenised([("good", "film")])[1].tolist() == [[0] * 6]


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (token_inputs(), True),
        ((whole("x", 9),), True),
        ((whole("input_ids", 9), whole("attention_mask", 9)), True),
        ((whole("input_ids", 9), whole("attention_mask", 8)), False),
        ((whole("input_ids", 9), whole("decoder_input_ids", 9)), False),
        ((whole("input_ids", 3, 9),), False),
        ((TensorSpec("pixel_values", (3, 8, 8)),), False),
        ((whole("attention_mask", 9), whole("token_type_ids", 9)), False),
    ],
)
def test_which_networks_take_texts(inputs: tuple[TensorSpec, ...], wanted: bool):
    assert takes_tokens(inputs) == wanted


def test_described_is_json_and_names_the_tokenizer(tmp_path: Path):
    described = json.loads(json.dumps(token_recipe(tmp_path).described()))
    assert described["inputs"]["input_ids"] == [6]
    assert described["tokenizer"].endswith(f", {len(WORDS)} tokens")


# Loading


def test_settings_beside_the_tokenizer_are_kept(tmp_path: Path):
    folder = write_tokenizer(tmp_path, padding_side="left", truncation_side="left", pad_token={"content": "a"})
    ids, mask, _ = encode(folder, [("good",), ("good bad film very good film",)])
    assert ids == [[7, 7, 7, 2, 4, 3], [2, 6, 8, 4, 6, 3]]
    assert mask[0] == [0, 0, 0, 1, 1, 1]


def test_the_padding_token_by_number_and_by_habit(tmp_path: Path):
    folder = write_tokenizer(tmp_path, pad_token=None)
    assert encode(folder, [("good",)])[0] == [[2, 4, 3, 0, 0, 0]]
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 7}))
    assert encode(folder, [("good",)])[0] == [[2, 4, 3, 7, 7, 7]]


def test_equals_what_transformers_makes_of_the_same_folder(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    folder = write_tokenizer(tmp_path, tokenizer_class="PreTrainedTokenizerFast", model_max_length=99)
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    texts = [("good very bad film",), ("a",), ("good a film", "very bad bad bad film")]
    for text in texts:
        wanted = theirs(*text, padding="max_length", truncation=True, max_length=7, return_token_type_ids=True)
        ids, mask, _ = encode(folder, [text], 7)
        assert ids == [wanted["input_ids"]]
        assert mask == [wanted["attention_mask"]]


def vocabulary(folder: Path, **settings: Any) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder


def test_vocabulary_files_through_transformers(tmp_path: Path):
    pytest.importorskip("transformers")
    ids, mask, segments = encode(vocabulary(tmp_path / "m"), [("Good film",), ("bad",)])
    assert ids == [[2, 5, 7, 3, 0, 0], [2, 6, 3, 0, 0, 0]]
    assert mask[0] == [1, 1, 1, 1, 0, 0]
    assert segments == [[0] * 6] * 2
    assert encode(vocabulary(tmp_path / "m"), [("good", "bad")])[2] == [[0, 0, 0, 1, 1, 0]]


def test_settings_that_name_files_elsewhere_are_dropped(tmp_path: Path):
    pytest.importorskip("transformers")
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("secret\n" * 20)
    folder = vocabulary(tmp_path / "m", vocab_file=str(elsewhere), tokenizer_file=str(elsewhere))
    assert encode(folder, [("good film",)])[0] == [[2, 5, 7, 3, 0, 0]]


@pytest.mark.parametrize("with_json", [False, True])
def test_code_of_the_model_s_own_never_runs(tmp_path: Path, with_json: bool):
    folder = vocabulary(tmp_path / "m", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    if with_json:
        write_tokenizer(folder, auto_map={"AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(DataError, match=r"asks for code of its own \(auto_map\)"):
        load_tokenizer(folder, 6)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "\xff", '{"model": 3}', "[" * 100_000])
def test_damaged_files_are_the_model_s_fault(tmp_path: Path, name: str, content: str):
    folder = write_tokenizer(tmp_path)
    (folder / name).write_bytes(content.encode("latin-1"))
    if content == '{"model": 3}' and name != "tokenizer.json":
        assert load_tokenizer(folder, 6) is not None
        return
    with pytest.raises(DataError) as caught:
        load_tokenizer(folder, 6)
    assert caught.value.field == "model"
    assert "\n" not in str(caught.value)


def test_a_vocabulary_that_fits_no_tokenizer_is_refused(tmp_path: Path):
    pytest.importorskip("transformers")
    (tmp_path / "vocab.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="the tokenizer in the model's folder cannot be used"):
        load_tokenizer(tmp_path, 6)


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path):
    assert load_tokenizer(tmp_path, 6) is None


# Opening


def opened(path: Path, tmp_path: Path, recipe: TokenRecipe) -> Split:
    return open_split(path, "FORMAT_UNSPECIFIED", recipe, tmp_path, "data.train")


def test_texts_without_a_tokenizer_are_refused_with_the_ways_out(tmp_path: Path):
    (tmp_path / "blob").write_text("text,label\ngood,1\n")
    with pytest.raises(DataError, match=r"tokenizer\.json in it.*arrays input_ids, attention_mask, token_type_ids"):
        opened(tmp_path / "blob", tmp_path, TokenRecipe(token_inputs()))


def test_images_for_a_model_of_texts_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="holds images, and the model takes input_ids, attention_mask"):
        opened(write_folders(tmp_path / "d", {"a": 1, "b": 1}), tmp_path, token_recipe(tmp_path))


def arrays(count: int = 4, **changed: Any) -> dict[str, Any]:
    found = {name: np.ones((count, 6), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    return found | {"labels": np.arange(count) % 2} | changed


def save(file: Path, values: dict[str, Any]) -> Path:
    with file.open("wb") as out:
        np.savez(out, **{name: value for name, value in values.items() if value is not None})
    return file


def test_ready_inputs_by_name(tmp_path: Path):
    ids = np.random.default_rng(0).integers(0, len(WORDS), (4, 6)).astype(np.int32)
    split = opened(save(tmp_path / "blob", arrays(input_ids=ids)), tmp_path, TokenRecipe(token_inputs()))
    found, labels = split.batch([3, 0])
    assert torch.equal(found[0], torch.from_numpy(ids[[3, 0]]).long())
    assert [values.dtype for values in found] == [torch.int64] * 3
    assert labels.tolist() == [1, 0]


def test_inputs_of_several_images(tmp_path: Path):
    inputs = (TensorSpec("left", (3, 4, 4)), TensorSpec("right", (3, 4, 4)))
    values = {name: np.random.default_rng(0).random((4, 3, 4, 4)) for name in ("left", "right")}
    split = opened(save(tmp_path / "blob", values), tmp_path, TokenRecipe(inputs))
    np.testing.assert_allclose(split[2][0][1].numpy(), values["right"][2], rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attention_mask": None}, "no array 'attention_mask' in blob: found input_ids, token_type_ids, labels"),
        ({"input_ids": np.ones((4, 7), np.int64)}, "samples of shape [7] (int64) and the model's input takes [6]"),
        ({"input_ids": np.ones((4, 6))}, "(float64) and the model's input takes [6] (int64)"),
        ({"input_ids": np.full((4, 6), 9)}, "goes from 9 to 9, and the model knows 0 to 8"),
        ({"input_ids": np.full((4, 6), -1)}, "goes from -1 to -1"),
        ({"input_ids": np.ones((5, 6), np.int64)}, "different numbers of samples: input_ids 5, attention_mask 4"),
        ({"input_ids": np.array([{}], dtype=object)}, "Python objects"),
        ({"labels": np.zeros(3, np.int64)}, "wanted 4 integers"),
    ],
)
def test_ready_inputs_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, Any], said: str):
    with pytest.raises(DataError) as caught:
        opened(save(tmp_path / "blob", arrays(**changed)), tmp_path, TokenRecipe(token_inputs()))
    assert said in str(caught.value)

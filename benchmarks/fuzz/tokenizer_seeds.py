"""Good tokenizers and image processors to start from, as they lie beside a model."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "very")

_PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_center_crop": True,
    "crop_size": {"height": 8, "width": 8},
    "size": {"shortest_edge": 9},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
}


@cache
def files_of_words() -> dict[str, bytes]:
    """Returns a word-level tokenizer in BERT's manner; word i of `WORDS` is token i."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return {"tokenizer.json": words.to_str().encode(), **_beside({"pad_token": "[PAD]"})}


@cache
def seeds() -> tuple[dict[str, bytes], ...]:
    """Returns the files of each folder by name."""
    return (files_of_words(), _pieces(), _bytes(), _vocabulary(), _pairs())


def _pieces() -> dict[str, bytes]:
    pieces = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.enable_padding(length=9, pad_token=WORDS[0])
    pieces.enable_truncation(9)
    return {"tokenizer.json": pieces.to_str().encode(), **_beside({"padding_side": "left"})}


def _bytes() -> dict[str, bytes]:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(r"\s+", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>"], show_progress=False)
    made.train_from_iterator(["good bad film a very"] * 9, trainer)
    return {"tokenizer.json": made.to_str().encode(), **_beside({"pad_token": {"content": "<pad>"}})}


def _vocabulary() -> dict[str, bytes]:
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    return {"vocab.txt": "\n".join((*WORDS, "[MASK]")).encode(), **_beside(settings)}


def _pairs() -> dict[str, bytes]:
    words = {"<|endoftext|>": 0, "g": 1, "o": 2, "d": 3, "Ġ": 4, "oo": 5}
    vocabulary = json.dumps(words).encode()
    settings = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    return {"vocab.json": vocabulary, "merges.txt": b"#version: 0.2\no o\n", **_beside(settings)}


def _beside(settings: dict[str, object]) -> dict[str, bytes]:
    return {
        "tokenizer_config.json": json.dumps(settings).encode(),
        "special_tokens_map.json": json.dumps({"unk_token": "[UNK]"}).encode(),
        "config.json": json.dumps({"model_type": "bert", "pad_token_id": 0}).encode(),
        "preprocessor_config.json": json.dumps(_PROCESSOR).encode(),
    }

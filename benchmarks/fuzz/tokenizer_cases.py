"""Broken files beside a model: tokenizers, vocabularies, settings, image processors, and the archive around them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from benchmarks.fuzz.archive_cases import broken_archive
from benchmarks.fuzz.data_seeds import tar_of, zip_of
from benchmarks.fuzz.tokenizer_seeds import seeds
from benchmarks.fuzz.trees import change_any, change_integer, change_leaf
from benchmarks.fuzz.values import PATHS, STRINGS, Random, chance, mangle, pick

_WORDS = (
    *(
        *STRINGS,
        *PATHS,
        "WordLevel",
        "WordPiece",
        "BPE",
        "Unigram",
        "BertNormalizer",
        "Precompiled",
        "Replace",
        "Split",
    ),
    *("Sequence", "ByteLevel", "Metaspace", "TemplateProcessing", "BertProcessing", "Lowercase", "Strip", "Prepend"),
    *(
        "OnlyFirst",
        "LongestFirst",
        "DoNotTruncate",
        "Fixed",
        "BatchLongest",
        "Left",
        "Right",
        "[PAD]",
        "[UNK]",
        "[CLS]",
    ),
    *(
        "(a+)+$",
        "(",
        "\\p{L}",
        "(?=x)",
        "BertTokenizer",
        "LlamaTokenizer",
        "T5Tokenizer",
        "GPT2Tokenizer",
        "bert",
        "gpt2",
    ),
    *("PreTrainedTokenizerFast", "NoSuchTokenizer", "t5", "llama", "AutoTokenizer", "evil.Evil", "http://127.0.0.1/x"),
)
_OTHERS = (
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "x.py",
)


def build(random: Random) -> dict[str, bytes]:
    """Returns one case: the packed folder."""
    files = dict(pick(random, seeds()))
    for _ in range(int(random.integers(1, 3))):
        _change(random, files)
    entries = [(f"model/{name}" if chance(random, 0.5) else name, data) for name, data in files.items()]
    if chance(random, 0.15):
        return {"model.zip": broken_archive(random, entries)}
    return {"model.zip": pick(random, (zip_of, tar_of))(entries)}


def whole() -> list[dict[str, bytes]]:
    """Returns the seeds as cases, unbroken."""
    return [{"model.zip": zip_of(list(files.items()))} for files in seeds()]


def _change(random: Random, files: dict[str, bytes]) -> None:
    kind, name = int(random.integers(12)), pick(random, list(files))
    if kind == 0:
        files[name] = mangle(random, files[name], files[name])
    elif kind == 1 and len(files) > 1:
        del files[name]
    elif kind == 2:
        files[name] = pick(
            random, (b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"9" * 10_000, b"NaN", b"\0" * 9)
        )
    elif kind == 3:
        files[pick(random, _OTHERS)] = pick(random, (files[name], random.bytes(200), b"\n" * 1000, b"a" * 100_000))
    elif name.endswith(".txt"):
        files[name] = _lines(random, files[name])
    else:
        files[name] = _tree(random, files[name])


def _lines(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines.insert(int(random.integers(len(lines) + 1)), pick(random, _WORDS).encode("utf-8", "surrogatepass"))
    return b"\n".join(lines if chance(random, 0.7) else lines * 3)


def _tree(random: Random, data: bytes) -> bytes:
    try:
        value: Any = _parsed(data)
    except (ValueError, RecursionError):
        return mangle(random, data, data)
    value = json.loads(json.dumps(value))
    if not isinstance(value, dict | list):
        return data
    for _ in range(int(random.geometric(0.6))):
        way = int(random.integers(5))
        if way == 0:
            change_integer(random, value)
        else:
            (change_any if way < 3 else change_leaf)(random, value, _WORDS)
    return json.dumps(value).encode()


@cache
def _parsed(data: bytes) -> Any:
    return json.loads(data)

"""Opens uploaded data as a job does, and reads every sample."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from benchmarks.fuzz.opened import Opened
from benchmarks.fuzz.tokenizer_seeds import WORDS, files_of_words
from compressors.graph import TensorSpec
from service.data import (
    Columns,
    DataError,
    ResolvedPreprocessing,
    Split,
    TokenRecipe,
    check_against,
    check_same_classes,
    load_tokenizer,
    open_split,
    parts,
)
from service.data.opening import Recipe

HOW: Final = "how.json"
"""Beside the upload: what the job says about it."""
CLASSES: Final = 4
LENGTH: Final = 6

_BATCH: Final = 64
_MOST_READ: Final = 2000


def _images(channels: int = 3, side: int = 8, **options: Any) -> ResolvedPreprocessing:
    return ResolvedPreprocessing((channels, side, side), (0.5,) * channels, (0.5,) * channels, **options)


@cache
def _texts() -> TokenRecipe:
    with tempfile.TemporaryDirectory() as place:
        for name, data in files_of_words().items():
            (Path(place) / name).write_bytes(data)
        return TokenRecipe(token_inputs(), load_tokenizer(Path(place), LENGTH))


def token_inputs(words: int = len(WORDS)) -> tuple[TensorSpec, ...]:
    """Returns the inputs of a network of texts that knows so many tokens."""
    highest = {"input_ids": words, "attention_mask": 2, "token_type_ids": 2}
    return tuple(TensorSpec(name, (LENGTH,), torch.int64, 0, high) for name, high in highest.items())


RECIPES: Final = MappingProxyType[str, Callable[[], Recipe]](
    {
        "images": _images,
        "gray": lambda: _images(1, 9, interpolation="bicubic"),
        "larger": lambda: _images(3, 32, crop_fraction=0.875, squash=True, keep_exact=False),
        "raw": lambda: ResolvedPreprocessing((3, 8, 8), raw=True),
        "texts": _texts,
        "feeds": lambda: TokenRecipe(token_inputs()),
        "pictures": lambda: TokenRecipe((TensorSpec("x", (3, 8, 8)), TensorSpec("left", (3, 8, 8)))),
    }
)
"""Networks that data can be for, as far as reading it goes."""


def open_data(path: Path, work: Path) -> Opened:
    """Opens the upload and reads it.

    Raises:
        DataError: It cannot be used.
    """
    how = json.loads((path.parent / HOW).read_text())
    columns = Columns(tuple(how["text"]), how["image"], how["label"])
    split = open_split(path, how["format"], RECIPES[how["recipe"]](), work, how["field"], columns)
    _read(split)
    shown = [*split.broken_names]
    for use in (_against, _divided):
        try:
            use(split)
        except DataError as exc:  # good data, only not for this network, or too little of it
            shown.append(str(exc))
    return Opened(f"for {how['recipe']}", tuple(shown))


def _against(split: Split) -> None:
    check_same_classes(split, split)
    check_against(split, CLASSES)


def _divided(split: Split) -> None:
    found = parts(split.widened(CLASSES), 0)
    found.calibration.batch(range(min(_BATCH, len(found.calibration))))


def _read(split: Split) -> None:
    count = min(_MOST_READ, len(split))
    for start in range(0, count, _BATCH):
        split.batch(range(start, min(start + _BATCH, count)))
    for inputs, targets in split.subset(range(min(_BATCH, count))).numpy_batches(7):
        assert len(inputs[0]) == len(targets)

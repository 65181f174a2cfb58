"""Opens what lies beside a model as a job does: the tokenizer, and how images are prepared."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.fuzz.data_opening import LENGTH, token_inputs
from benchmarks.fuzz.opened import Opened
from compressors.sources import ModelSource, preprocessing
from compressors.sources.tokenizer import copy_tokenizer
from service.data import TokenRecipe, load_tokenizer, resolve
from service.spec import Preprocessing

_TOKENS: Final = 1000
_TEXTS: Final = (("good film",), ("",), ("a very bad film " * 900,), ("é\0\u202e[PAD]",), ("good", "bad film"))


def open_tokenizer(path: Path, work: Path) -> Opened:
    """Opens a packed folder of a model, but for the model.

    Raises:
        DataError: The tokenizer cannot be used.
        EngineError: The archive or a configuration cannot.
    """
    source = ModelSource(kind="folder", path=path)
    folder = Path(tempfile.mkdtemp(dir=work, prefix="tokenizer-"))
    config = preprocessing(source) or {}
    resolved = resolve(Preprocessing(), config, (3, 8, 8))
    resolved.finish(np.zeros((1, 3, 8, 8), np.uint8))
    copy_tokenizer(source, folder)
    found = load_tokenizer(folder, LENGTH)
    if found is None:
        return Opened("no tokenizer")
    recipe = TokenRecipe(token_inputs(_TOKENS), found)
    for text in _TEXTS:
        recipe.tokenised([text, text])
    return Opened("a tokenizer", (found.fingerprint,))

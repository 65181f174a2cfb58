"""Texts by index: the contract, and the store that makes model inputs of them when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

import numpy as np
from typing_extensions import override

from service.data.broken import Broken
from service.data.errors import BrokenSampleError
from service.data.store import Store, tried_first

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from service.data.tokens import TokenRecipe

Text = tuple[str, ...]
"""One text, or the two of a pair."""

MAX_CHARACTERS: Final = 1 << 20
"""Of one text; longer ones are broken: nothing but a small part of them would reach the model."""


class Texts(ABC):
    """Texts of one split, read when they are asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are, broken ones included."""

    @abstractmethod
    def load(self, indices: Sequence[int]) -> list[Text | BrokenSampleError]:
        """Returns each text, or why there is none."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Says which sample this is, for messages."""

    def torn(self) -> Mapping[int, str]:
        """Returns the samples that were found broken while the source was opened, each with its reason."""
        return {}


def checked(texts: Sequence[object]) -> Text | BrokenSampleError:
    """Returns the texts of one sample as they are given to the tokenizer, or why they cannot be."""
    for text in texts:
        if not isinstance(text, str):
            return BrokenSampleError(
                f"the text is {type(text).__name__}, not a string" if text is not None else "no text"
            )
        if len(text) > MAX_CHARACTERS:
            return BrokenSampleError(f"the text has {len(text)} characters, at most {MAX_CHARACTERS} are taken")
    if not any(text.strip() for text in texts if isinstance(text, str)):
        return BrokenSampleError("the text is empty")
    return tuple(str(text) for text in texts)


@final
class TextStore(Store):
    """Texts, tokenised when they are asked for; that costs less than keeping them would."""

    def __init__(self, texts: Texts, recipe: TokenRecipe, field: str) -> None:
        self._texts = texts
        self._recipe = recipe
        self._broken = Broken(field, "texts cannot be used")
        for index, why in texts.torn().items():
            self._broken.note(index, texts.name(index), why)
        self._broken.refuse_too_many(len(texts))
        tried = tried_first(len(texts))
        self._load(tried)
        self._broken.refuse_too_many(len(tried))

    @override
    def inputs(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        texts = self._load(rows)
        self._broken.refuse_too_many(len(self._texts))
        return self._recipe.tokenised([("",) if isinstance(text, BrokenSampleError) else text for text in texts])

    @property
    @override
    def broken(self) -> Broken:
        return self._broken

    def _load(self, rows: npt.NDArray[np.int64]) -> list[Text | BrokenSampleError]:
        texts = self._texts.load(rows.tolist())
        for row, text in zip(rows, texts, strict=True):
            if isinstance(text, BrokenSampleError):
                self._broken.note(int(row), self._texts.name(int(row)), str(text))
        return texts

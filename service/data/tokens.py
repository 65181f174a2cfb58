"""Texts become model inputs: one recipe for training, calibration and evaluation.

Texts are cut and padded to the length of the model's input, so that every sample has the shape that the network was
loaded with. The tokenizer is the one in the model's folder; inputs come in the order of the network's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch

from service.data.errors import DataError

if TYPE_CHECKING:
    from compressors.graph import TensorSpec
    from service.data.texts import Text

IDS: Final = ("input_ids", "input", "tokens", "ids", "src", "input_word_ids")
MASKS: Final = ("attention_mask", "mask", "input_mask")
SEGMENTS: Final = ("token_type_ids", "segment_ids", "input_type_ids")


class Tokenizer(Protocol):
    """What makes token ids of texts."""

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        """Returns ids, attention masks and segments, each (texts, length)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Says which one it is."""
        ...


@dataclass(frozen=True)
class TokenRecipe:
    """How the inputs of a network that takes more than one image are made: from texts, or taken as they are.

    Attributes:
        inputs: What the network takes.
        tokenizer: None where the model brought none, or does not take texts; then only ready arrays are taken.
    """

    inputs: tuple[TensorSpec, ...]
    tokenizer: Tokenizer | None = None

    def tokenised(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        """Returns the network's inputs in its order, each (texts, length).

        Raises:
            DataError: The tokenizer knows tokens that the network does not.
        """
        if self.tokenizer is None:
            raise DataError("data", "the model came without a tokenizer")
        ids, masks, segments = (np.asarray(rows, dtype=np.int64) for rows in self.tokenizer.encode(texts))
        return tuple(self._input(spec, ids, masks, segments) for spec in self.inputs)

    def _input(self, spec: TensorSpec, ids: Any, masks: Any, segments: Any) -> torch.Tensor:
        role = role_of(spec.name, alone=len(self.inputs) == 1)
        values = {"ids": ids, "mask": masks, "segments": segments}[str(role)]
        if role == "segments":
            values = np.minimum(values, spec.high - 1)
        # Two is what a table has of which nothing is known.
        if role == "ids" and spec.high > 2 and values.max(initial=0) >= spec.high:
            raise DataError(
                "model",
                f"the tokenizer gives the token {int(values.max())}, and the network's table of tokens has {spec.high} "
                "rows; the tokenizer in the model's folder is not the network's",
            )
        return torch.from_numpy(values).to(spec.dtype)

    def described(self) -> dict[str, Any]:
        """Returns the recipe for a report: JSON types only."""
        return {
            "inputs": {spec.name: list(spec.shape) for spec in self.inputs},
            "tokenizer": None if self.tokenizer is None else self.tokenizer.fingerprint,
        }


def takes_tokens(inputs: Sequence[TensorSpec]) -> bool:
    """Tells whether a network takes text: sequences of whole numbers, all as long as each other."""
    whole = all(not spec.dtype.is_floating_point and len(spec.shape) == 1 for spec in inputs)
    roles = [role_of(spec.name, alone=len(inputs) == 1) for spec in inputs]
    return whole and len({spec.shape for spec in inputs}) == 1 and None not in roles and roles.count("ids") == 1


def role_of(name: str, *, alone: bool) -> str | None:
    """Returns what an input of a network takes, by its name; its only input takes the tokens whatever its name."""
    plain = name.lower().split(":")[0].removeprefix("serving_default_")
    if alone:
        return "ids"
    for role, names in (("ids", IDS), ("mask", MASKS), ("segments", SEGMENTS)):
        if plain in names:
            return role
    return None

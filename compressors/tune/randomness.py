"""Randomness that depends on the seed and the step alone, so that a training can go on from anywhere."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def generator(*parts: int | str) -> torch.Generator:
    """Returns a source of randomness that is the same for the same parts, and unrelated for others."""
    return torch.Generator().manual_seed(_number(parts))


@contextmanager
def seeded(*parts: int | str) -> Iterator[torch.Generator]:
    """Makes everything random inside follow `parts`, and leaves what is outside as it was.

    Yields a generator of its own; the global ones of torch, numpy and Python, which dropout and timm's augmentation
    draw from, are set too.
    """
    number = _number(parts)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # timm draws from the global one
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        random.seed(number)
        try:
            yield torch.Generator().manual_seed(number)
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _number(parts: tuple[int | str, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1

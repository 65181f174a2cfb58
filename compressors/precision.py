"""What products are computed in, where a few digits are enough: to train, and to judge what is not shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Precision = Literal["float32", "bfloat16", "float16"]


def choose_precision(device: str, asked: Literal["auto"] | Precision) -> Precision:
    """Returns what was asked for, or the fastest that a device of this type multiplies in hardware."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    # Without these instructions bfloat16 is emulated and several times slower than float32.
    capable = (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported)  # noqa: SLF001  # no public name
    return "bfloat16" if device == "cpu" and any(ask() for ask in capable) else "float32"


def computed_in(precision: Precision) -> AbstractContextManager[object]:
    """Returns the context in which the processor's products are computed in a precision; float64 ones stay as they are.

    Weights stay float32, and sums of least squares float64. Weights may be changed in it: no copy of them is kept.
    """
    return torch.autocast("cpu", getattr(torch, precision), enabled=precision != "float32", cache_enabled=False)

"""What the training device computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Precision:
    """Where and in what numbers a step is computed; weights stay float32.

    Attributes:
        device: Where.
        reduced: bfloat16 products and channels-last tensors instead of float32.
    """

    device: torch.device
    reduced: bool

    @staticmethod
    def choose(device: str, reduced: Literal["auto", "always", "never"]) -> Precision:
        """Returns bfloat16 with channels-last where the device multiplies it in hardware, or as told."""
        where = torch.device(device)
        return Precision(where, reduced == "always" or (reduced == "auto" and _multiplies_bfloat16(where)))

    @property
    def name(self) -> str:
        """What products are computed in."""
        return "bfloat16" if self.reduced else "float32"

    def autocast(self) -> AbstractContextManager[object]:
        """Returns the context in which forward passes run."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.reduced else nullcontext()

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the tensor on the device, images in channels-last order: convolutions train faster on it."""
        tensor = tensor.to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    def place_module(self, module: nn.Module) -> None:
        """Moves a module to the device, in place."""
        module.to(self.device)
        for parameter in module.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def bring_back(module: nn.Module) -> None:
    """Moves a module to the processor, in the usual memory order, in eval mode, in place."""
    module.to("cpu")
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()
        parameter.grad = None
    module.eval()


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bfloat16 is emulated and several times slower than float32.
    capable = (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported)  # noqa: SLF001  # no public name
    return device.type == "cpu" and any(ask() for ask in capable)

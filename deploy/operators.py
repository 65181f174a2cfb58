"""Writes operators as ONNX for timing: many at once, and as they will be emitted.

The exporter spends a second on an operator, whatever its size. So a convolution or a linear layer, alone or with an
activation, is written directly (the tests prove that the runtime makes the same of it), and everything else is put
side by side into one module, exported once, and taken apart again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnx.utils import Extractor
from torch import nn

from deploy.cleaning import clean, serialise
from deploy.direct import build_direct
from deploy.errors import ExportError
from deploy.export import ExportSettings, InputSpec, describe_input, export_onnx

_BUNDLE_SIZE = 24
_BUNDLE_BYTES = 2**28


@dataclass(frozen=True)
class Piece:
    """One module to write.

    Attributes:
        module: In eval mode.
        inputs: What it takes.
        path: Where to write it.
    """

    module: nn.Module
    inputs: tuple[InputSpec, ...]
    path: Path


@dataclass(frozen=True)
class _Renamed:
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    low: int
    high: int


class _SideBySide(nn.Module):
    """Runs modules on inputs of their own, and returns all their outputs in a row."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(piece.module for piece in pieces)
        self._bounds = [0, *accumulate(len(piece.inputs) for piece in pieces)]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: list[torch.Tensor] = []
        for part, (start, end) in zip(self.parts, pairwise(self._bounds), strict=True):
            outputs.extend(_as_tuple(part(*inputs[start:end])))
        return tuple(outputs)


def write_pieces(pieces: Sequence[Piece], batch: int) -> None:
    """Writes every piece to its path, for a fixed batch size.

    Raises:
        ExportError: If one of them cannot be written; the message names the operator.
    """
    left = [piece for piece in pieces if not _write_directly(piece, batch)]
    for bundle in _bundles(left):
        try:
            _write_bundle(bundle, batch)
        except ExportError:
            if len(bundle) == 1:
                raise
            # One of them is at fault. Alone, the others can still be written, and the message is about that one.
            for piece in bundle:
                _write_bundle([piece], batch)


def _write_directly(piece: Piece, batch: int) -> bool:
    model = build_direct(piece.module, piece.inputs, batch)
    if model is None:
        return False
    piece.path.write_bytes(serialise(model))
    return True


def _bundles(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    bundle: list[Piece] = []
    size = 0
    for piece in pieces:
        weight = sum(value.numel() * value.element_size() for value in piece.module.parameters())
        if bundle and (len(bundle) == _BUNDLE_SIZE or size + weight > _BUNDLE_BYTES):
            yield bundle
            bundle, size = [], 0
        bundle.append(piece)
        size += weight
    if bundle:
        yield bundle


def _write_bundle(pieces: Sequence[Piece], batch: int) -> None:
    inputs = [
        [
            _Renamed(f"piece{place}_in{index}", tuple(spec.shape), spec.dtype, spec.low, spec.high)
            for index, spec in enumerate(piece.inputs)
        ]
        for place, piece in enumerate(pieces)
    ]
    outputs = [
        [f"piece{place}_out{index}" for index in range(_count_outputs(piece, batch))]
        for place, piece in enumerate(pieces)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.onnx"
        settings = ExportSettings(dynamic_batch=False, traced_batch=batch)
        flat = [spec for specs in inputs for spec in specs]
        export_onnx(_SideBySide(pieces), flat, [name for names in outputs for name in names], path, settings)
        extractor = Extractor(onnx.load(path))
    for piece, specs, names in zip(pieces, inputs, outputs, strict=True):
        piece.path.write_bytes(serialise(clean(extractor.extract_model([spec.name for spec in specs], names))))


def _count_outputs(piece: Piece, batch: int) -> int:
    with torch.no_grad():
        return len(_as_tuple(piece.module(*(_example(spec, batch) for spec in piece.inputs))))


def _example(spec: InputSpec, batch: int) -> torch.Tensor:
    return torch.from_numpy(describe_input(spec).random(batch, 0))


def _as_tuple(result: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)

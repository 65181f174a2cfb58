from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy.errors import ExportError
from deploy.operators import Piece, write_pieces
from deploy.runtimes import SessionSettings, find_runtime
from tests.deploy.networks import IMAGE, Residual, Spec, make_residual


class Sum(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(a + b), a - b


class Spectral(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x)


def outputs(piece: Piece, batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the file and the module compute."""
    session = find_runtime("onnxruntime").load(piece.path, SessionSettings())
    feed = [spec.random(batch, seed) for seed, spec in enumerate(session.inputs)]
    with torch.no_grad():
        wanted = piece.module(*(torch.from_numpy(value) for value in feed))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    return [(got, value.numpy()) for got, value in zip(session.run(feed), wanted, strict=True)]


def test_pieces_written_together_compute_what_each_computes_alone(residual: Residual, tmp_path: Path) -> None:
    pair = (Spec("a", (4, 6)), Spec("b", (4, 6)))
    traced = torch.export.export(make_residual(1), (torch.zeros(3, 3, 8, 8),)).module()
    pieces = [
        Piece(residual, (IMAGE,), tmp_path / "residual.onnx"),
        Piece(Sum().eval(), pair, tmp_path / "sum.onnx"),
        Piece(nn.Linear(6, 2).eval(), (Spec("x", (6,)),), tmp_path / "linear.onnx"),
        Piece(traced, (IMAGE,), tmp_path / "traced.onnx"),
    ]
    write_pieces(pieces, batch=3)
    for piece in pieces:
        for got, wanted in outputs(piece, 3):
            np.testing.assert_allclose(got, wanted, atol=1e-5)
    graph = onnx.load(tmp_path / "sum.onnx").graph
    assert [value.name for value in graph.input] == ["piece1_in0", "piece1_in1"]
    # A piece holds nothing of the others.
    assert sorted(node.op_type for node in graph.node) == ["Add", "Relu", "Sub"]
    assert not graph.initializer


def test_the_one_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pieces = [
        Piece(nn.Softmax(1).eval(), (Spec("x", (5,)),), tmp_path / "softmax.onnx"),
        Piece(Spectral().eval(), (Spec("x", (3, 3)),), tmp_path / "spectral.onnx"),
    ]
    with pytest.raises(ExportError, match="svd"):
        write_pieces(pieces, batch=1)
    assert (tmp_path / "softmax.onnx").exists()

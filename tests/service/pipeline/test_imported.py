from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources import ModelSource, load
from service.errors import WrongImportError
from service.pipeline.imported import check_import, onnx_file

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def write(path: Path, batch: int | str = "n") -> Path:
    """A convolution and what follows it."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, 6, 6])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(WEIGHT, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    path.write_bytes(made.SerializeToString())
    return path


def embedding(path: Path, rows: int) -> Path:
    """A table that is looked up: an index of `rows` or more would be an error."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 2])
    table = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "g",
        [ids],
        [y],
        [numpy_helper.from_array(table, "table")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_a_right_import_passes(tmp_path: Path, batch: int | str) -> None:
    path = write(tmp_path / "net.onnx", batch)
    check_import(path, load(ModelSource(kind="onnx", path=path)))


def test_integers_stay_within_the_table_that_they_index(tmp_path: Path) -> None:
    path = embedding(tmp_path / "net.onnx", 3)
    check_import(path, load(ModelSource(kind="onnx", path=path)))


def test_a_wrong_import_is_ours_and_says_by_how_much(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    graph = load(ModelSource(kind="onnx", path=path))
    with torch.no_grad():
        next(graph.module.parameters()).mul_(1.001)
    with pytest.raises(WrongImportError, match=r"output 'y' differs from ONNX Runtime's by 0\.001 .*fault of Shoal"):
        check_import(path, graph)


def test_a_file_that_onnx_runtime_cannot_load_is_the_callers(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    graph = load(ModelSource(kind="onnx", path=path))
    model = onnx.load(path)
    model.graph.node[1].op_type = "NeverHeardOf"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load .*checks every import"):
        check_import(path, graph)


def test_an_archive_is_unpacked_and_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    assert onnx_file(path, tmp_path / "out") == path
    with tarfile.open(tmp_path / "net.tar", "w") as tar:
        tar.add(path, "top/net.onnx")
    assert onnx_file(tmp_path / "net.tar", tmp_path / "out") == tmp_path / "out/top/net.onnx"


def test_an_archive_that_climbs_is_unsafe(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "net.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../net.onnx"))
    with pytest.raises(UnsafeModelError):
        onnx_file(tmp_path / "net.tar", tmp_path / "out")

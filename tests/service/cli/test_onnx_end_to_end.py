"""An ONNX file on the whole road: command, server, worker, importer, ONNX Runtime's second opinion, analysis."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.service.cli.command import shoal


def write(folder: Path) -> None:
    """Two convolutions with a residual; the weights lie in a file beside the network."""
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "first.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "x"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    stored = []
    data = b""
    for name in ("first.weight", "second.weight"):
        weight = generator.standard_normal((8, 8, 3, 3)).astype(np.float32)
        tensor = numpy_helper.from_array(weight, name)
        onnx.external_data_helper.set_external_data(tensor, "net.bin", offset=len(data), length=weight.nbytes)
        tensor.ClearField("raw_data")
        data += weight.tobytes()
        stored.append(tensor)
    (folder / "net.bin").write_bytes(data)
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, "h", "w"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", edges[:1], edges[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    (folder / "net.onnx").write_bytes(made.SerializeToString())


def test_an_onnx_file_with_external_data_is_analysed(tmp_path: Path) -> None:
    write(tmp_path)
    flags = ["--input-shape", "x=8,16,16", "--no-floor", "--json"]
    done = shoal("analyze", "net.onnx", *flags, folder=tmp_path, SHOAL_STATE_DIR=str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"] == 2 * 8 * 8 * 9
    assert [site["kind"] for site in found["sites"]] == ["relu", "relu"]
    assert {"first", "second"} <= {
        place for segment in found["segments"] for place in (segment["entry"], segment["exit"])
    }

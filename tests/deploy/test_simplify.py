from __future__ import annotations

import onnx
import onnxsim
import pytest
from onnx import TensorProto, helper

from deploy.simplify import simplify


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 4))],
        [
            helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


FOLDABLE = model(helper.make_node("Add", ["one", "two"], ["three"]), helper.make_node("Mul", ["x", "three"], ["y"]))


def test_constants_are_folded() -> None:
    simplified, notes = simplify(FOLDABLE)
    assert [node.op_type for node in simplified.graph.node] == ["Mul"]
    assert notes == ()


def test_a_changed_function_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = model(helper.make_node("Mul", ["x", "two"], ["y"]))
    monkeypatch.setattr(onnxsim, "simplify", lambda *_, **__: (broken, True))
    kept, (note,) = simplify(FOLDABLE)
    assert kept == FOLDABLE
    assert note.startswith("not simplified: onnxsim changed the outputs by 3")


def test_changed_names_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = onnx.ModelProto()
    renamed.CopyFrom(FOLDABLE)
    renamed.graph.input[0].name = renamed.graph.node[1].input[0] = "z"
    monkeypatch.setattr(onnxsim, "simplify", lambda *_, **__: (renamed, True))
    kept, (note,) = simplify(FOLDABLE)
    assert kept == FOLDABLE
    assert "changed the inputs and outputs from ['x', 'y'] to ['z', 'y']" in note


def test_a_failure_of_onnxsim_leaves_the_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    kept, (note,) = simplify(FOLDABLE)
    assert kept == FOLDABLE
    assert note == "not simplified: onnxsim failed with RuntimeError: no such luck"


def test_a_fixed_batch_size_is_compared_at_that_size() -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(FOLDABLE)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    simplified, notes = simplify(fixed)
    assert len(simplified.graph.node) == 1
    assert notes == ()

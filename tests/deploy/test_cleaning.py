from __future__ import annotations

from onnx import TensorProto, helper

from deploy.cleaning import clean, serialise


def test_metadata_is_removed_at_every_depth_and_the_input_is_left_alone() -> None:
    inner_node = helper.make_node("Identity", ["x"], ["inner"], name="/home/inner", doc_string="/home/doc")
    inner = helper.make_graph(
        [inner_node], "inner", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])]
    )
    inner.doc_string = "/home/graph"
    branch = helper.make_node("If", ["c"], ["y"], name="/home/if", then_branch=inner, else_branch=inner)
    constant = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    constant.attribute[0].t.doc_string = "/home/tensor"
    graph = helper.make_graph(
        [constant, branch],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1], doc_string="/home/input")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, doc_string="/home/model")
    model.metadata_props.add(key="where", value="/home/me")
    branch_metadata = model.graph.node[1].metadata_props.add()
    branch_metadata.key, branch_metadata.value = "stack", "/home/me/model.py"
    before = serialise(model)
    cleaned = clean(model)
    assert b"/home" not in serialise(cleaned)
    assert serialise(model) == before
    assert [node.name for node in cleaned.graph.node] == ["Constant_0", "If_0"]
    assert serialise(cleaned) == serialise(clean(cleaned))

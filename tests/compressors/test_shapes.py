import pytest
import torch
from torch import fx, nn

from compressors.graph import TensorSpec
from compressors.shapes import PROBE, convolution_padding, output_shape, propagate
from tests.compressors.networks import NETWORKS, graph_of


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_those_of_a_real_run(name):
    graph = graph_of(name)
    seen = {}

    class Watch(fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if isinstance(result, torch.Tensor) and n.op != "output":
                seen[n.name] = tuple(PROBE if n.op != "get_attr" and size == 7 else size for size in result.shape)
            return result

    with torch.no_grad():
        Watch(graph.module).run(*graph.samples(7))
    shapes = propagate(graph.module, graph.inputs)
    assert shapes.full == seen
    assert shapes.per_sample(graph.inputs[0].name) == graph.inputs[0].shape


def test_tensor_without_a_leading_batch_has_no_sample_shape():
    module = fx.symbolic_trace(lambda x: x.transpose(0, 1).reshape(-1))
    shapes = propagate(module, (TensorSpec("x", (3, 4)),))
    assert [shapes.per_sample(name) for name in ("x", "transpose", "reshape")] == [(3, 4), None, None]


def test_graph_that_makes_tensors_of_its_own_is_run_too():
    module = fx.symbolic_trace(lambda x: x + torch.ops.aten.ones.default([4]))
    assert propagate(module, (TensorSpec("x", (4,)),)).per_sample("add") == (4,)


def test_integers_keep_their_type():
    module = fx.symbolic_trace(lambda x: x + 1)
    assert propagate(module, (TensorSpec("x", (4,), torch.int64),)).dtypes["add"] is torch.int64


def test_edited_graph_is_looked_at_again():
    module = fx.symbolic_trace(lambda x: x.flatten(1))
    spec = (TensorSpec("x", (2, 3)),)
    assert propagate(module, spec).per_sample("flatten") == (6,)
    (node,) = [n for n in module.graph.nodes if n.op == "call_method"]
    node.args = (node.args[0], 2)
    module.recompile()
    assert propagate(module, spec).per_sample("flatten") == (2, 3)


def test_weights_stay_where_they_are():
    graph = graph_of("mobilenet")
    propagate(graph.module, graph.inputs)
    assert {value.device.type for value in graph.module.state_dict().values()} == {"cpu"}


def test_output_shape_of_a_module():
    assert output_shape(nn.Conv2d(3, 4, 3, 2, 1), [((5, 3, 9, 8), torch.float32)]) == (5, 4, 5, 4)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_padding_is_found_where_there_is_one(size, kernel, stride, padding):
    if padding > kernel // 2 or size + 2 * padding < kernel:
        return
    wanted = nn.Conv1d(1, 1, kernel, stride, padding)(torch.zeros(1, 1, size)).shape[-1]
    found = convolution_padding(size, wanted, kernel, stride)
    assert found is not None
    assert nn.Conv1d(1, 1, kernel, stride, found)(torch.zeros(1, 1, size)).shape[-1] == wanted


@pytest.mark.parametrize(("size_in", "size_out", "kernel", "stride"), [(8, 9, 3, 1), (8, 2, 3, 2), (1, 2, 1, 1)])
def test_no_padding_is_found_where_there_is_none(size_in, size_out, kernel, stride):
    assert convolution_padding(size_in, size_out, kernel, stride) is None

"""Whole networks as exporters write them: the same modules as the network itself, the same results as ONNX Runtime."""

import contextlib
import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressors.errors import ModelError, OptionError
from compressors.lift import lift
from compressors.sources import ModelSource, load
from tests.compressors.sources.onnx.builders import (
    FLOAT,
    difference,
    functions,
    helper,
    imported,
    kinds,
    model,
    node,
    weights,
    write,
)


def shaken(network: nn.Module) -> nn.Module:
    """The network with weights that all differ: exporters store equal tensors once."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand(value.shape, generator=generator))
    return network.eval()


def resnet():
    from torchvision.models import resnet18

    return resnet18(num_classes=7)


def mobilenet():
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=7)


def vit():
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=32, num_heads=2, num_classes=7
    )


def export(network, path, opset, *, new, fixed=False):
    sample = torch.randn(1 if fixed else 2, 3, 32, 32)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if new:
            batch = {0: torch.export.Dim("n")}
            torch.onnx.export(
                network, (sample,), path, opset_version=opset, dynamo=True, dynamic_shapes=(batch,),
                external_data=False, verbose=False,
            )  # fmt: skip
        else:
            axes = None if fixed else {"x": {0: "n"}, "y": {0: "n"}}
            torch.onnx.export(
                network, (sample,), path, opset_version=opset, dynamo=False, dynamic_axes=axes,
                input_names=["x"], output_names=["y"],
            )  # fmt: skip


def direct(network):
    """The kinds of modules that lifting the network itself gives, with batch norms folded as exporters fold them."""
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return sorted(kind for kind in kinds(lift(program, "direct")) if not kind.startswith("BatchNorm"))


EXPORTS = [
    (resnet, 9, False), pytest.param(resnet, 20, True, marks=pytest.mark.slow),
    (mobilenet, 13, False), pytest.param(mobilenet, 18, True, marks=pytest.mark.slow),
    (vit, 14, False), (vit, 17, False), (vit, 18, True),
]  # fmt: skip


@pytest.mark.parametrize(("build", "opset", "new"), EXPORTS)
def test_an_exported_network_has_its_own_modules_and_results(build, opset, new, tmp_path):
    network = shaken(build())
    export(network, tmp_path / "net.onnx", opset, new=new)
    graph = load(ModelSource(kind="onnx", path=tmp_path / "net.onnx"))
    assert difference(tmp_path / "net.onnx", graph, batch=1) < 1e-5
    assert difference(tmp_path / "net.onnx", graph, batch=3) < 1e-5
    assert sorted(kind for kind in kinds(graph) if not kind.startswith("BatchNorm")) == direct(network)


def test_modules_are_called_as_in_the_network(tmp_path):
    network = shaken(resnet())
    export(network, tmp_path / "net.onnx", 17, new=False)
    graph = load(ModelSource(kind="onnx", path=tmp_path / "net.onnx"))
    names = {name for name, module in graph.module.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert names == {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert "layer1.0.relu" in dict(graph.module.named_modules())


@pytest.mark.parametrize("build", [resnet, vit])
def test_a_fixed_batch_is_freed(build, tmp_path):
    network = shaken(build())
    export(network, tmp_path / "net.onnx", 17, new=False, fixed=True)
    graph = load(ModelSource(kind="onnx", path=tmp_path / "net.onnx"))
    assert difference(tmp_path / "net.onnx", graph, batch=1) < 1e-5
    (x,) = graph.samples(3)
    with torch.no_grad():
        torch.testing.assert_close(graph.module(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_network_of_tensorflow(tmp_path):
    """Channels last at the edges, padding that differs at the two ends, biases of their own, as tf2onnx writes them."""
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Conv", ["a", "w1"], "c", strides=[2, 2], auto_pad="SAME_UPPER", name="model/conv/Conv2D"),
        node("Add", ["c", "b1"], "d"),
        node("Clip", ["d", "zero", "six"], "e"),
        node("Conv", ["e", "w2"], "f", group=8, pads=[1, 1, 1, 1], name="model/depth/depthwise"),
        node("BatchNormalization", ["f", "scale", "shift", "mean", "var"], "g", epsilon=1e-3),
        node("Transpose", "g", "h", perm=[0, 2, 3, 1]),
        node("ReduceMean", "h", "i", axes=[1, 2], keepdims=0),
        node("MatMul", ["i", "w3"], "j", name="model/dense/MatMul"),
        node("Add", ["j", "b3"], "k"),
        node("Softmax", "k", "y", axis=-1),
    ]
    stored = {
        "w1": weights(8, 3, 3, 3), "b1": weights(1, 8, 1, 1), "zero": np.float32(0), "six": np.float32(6),
        "w2": weights(8, 1, 3, 3), "scale": weights(8), "shift": weights(8), "mean": weights(8),
        "var": np.abs(weights(8)), "w3": weights(8, 5), "b3": weights(5),
    }  # fmt: skip
    proto = model(nodes, ("n", 9, 9, 3), stored, opset=15)
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["Conv2d", "ReLU6", "Conv2d", "BatchNorm2d", "Linear"]
    assert "model.dense" in dict(graph.module.named_modules())
    assert difference(write(proto, tmp_path), graph) < 1e-5


class Tokens(nn.Module):
    """A text encoder in small: two inputs of integers, a mask, attention."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(12, 16)
        self.query, self.out, self.norm = nn.Linear(16, 16), nn.Linear(16, 3), nn.LayerNorm(16)

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        scores = self.query(x) @ x.transpose(1, 2) + (1.0 - mask[:, None].float()) * -1e4
        return self.out((scores.softmax(-1) @ x)[:, 0])


@pytest.mark.parametrize("new", [False, True])
def test_a_text_encoder_with_two_inputs(new, tmp_path):
    network = shaken(Tokens())
    samples = (torch.zeros(2, 12, dtype=torch.long), torch.ones(2, 12, dtype=torch.long))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        sizes = {name: {0: "n", 1: "s"} for name in ("ids", "mask")}
        free = {"dynamic_shapes": [{0: torch.export.Dim("n")}] * 2} if new else {"dynamic_axes": sizes}
        torch.onnx.export(
            network, samples, tmp_path / "net.onnx", opset_version=18 if new else 14, dynamo=new,
            input_names=["ids", "mask"], **({"external_data": False, "verbose": False} if new else {}), **free,
        )  # fmt: skip
    shapes = {} if new else {"ids": (12,), "mask": (12,)}
    graph = load(ModelSource(kind="onnx", path=tmp_path / "net.onnx", input_shapes=shapes))
    assert [spec.name for spec in graph.inputs] == ["ids", "mask"]
    assert sorted(kinds(graph)) == ["LayerNorm", "Linear", "Linear"]
    assert difference(tmp_path / "net.onnx", graph) < 1e-5


def test_open_sizes_must_be_given_and_fit(tmp_path):
    proto = model([node("Relu", "x")], ("n", 3, "h", "w"))
    with pytest.raises(ModelError, match=r"'x' has the shape \(n, 3, h, w\), open in more than the batch"):
        imported(proto, tmp_path)
    with pytest.raises(ModelError, match=r"sample shape \(3, any, any\), got \(4, 8, 8\)"):
        imported(proto, tmp_path, sample_shape=(4, 8, 8))
    with pytest.raises(OptionError, match="there is no input 'z'; the model takes x"):
        imported(proto, tmp_path, input_shapes={"z": (3,)})
    assert imported(proto, tmp_path, sample_shape=(3, 8, 8)).inputs[0].shape == (3, 8, 8)


def test_functions_of_the_file_are_written_out(tmp_path):
    body = [node("Mul", "ab", "c"), helper.make_node("LeakyRelu", ["c"], ["d"])]
    body[1].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function(
        "my.own", "Scaled", ["a", "b"], ["d"], body, [helper.make_opsetid("", 17)], attributes=["slope"]
    )
    call = helper.make_node("Scaled", ["x", "s"], ["y"], domain="my.own", slope=0.3)
    proto = model([call], stored={"s": weights(3, 1, 1)}, functions=[function])
    proto.opset_import.append(helper.make_opsetid("my.own", 1))
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["LeakyReLU"]
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_a_branch_whose_condition_is_known_is_taken(tmp_path):
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("t", "e")]
    branches = {
        "then_branch": helper.make_graph([node("Relu", "x", "t")], "then", [], results[:1]),
        "else_branch": helper.make_graph([node("Neg", "x", "e")], "else", [], results[1:]),
    }
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", ["s", "one"], "c"),
        node("Equal", ["c", "three"], "b"),
        node("If", "b", **branches),
    ]
    graph = imported(model(nodes, stored={"one": np.int64(1), "three": np.int64(3)}), tmp_path)
    assert kinds(graph) == ["ReLU"]


def test_what_depends_on_stored_tensors_only_is_computed_once(tmp_path):
    nodes = [node("Mul", "ws", "v"), node("Conv", "xv")]
    proto = model(nodes, stored={"w": weights(4, 3, 3, 3), "s": weights(4, 1, 1, 1)})
    graph = imported(proto, tmp_path)
    assert (kinds(graph), functions(graph)) == (["Conv2d"], [])
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_an_input_keeps_its_name_as_far_as_python_takes_it(tmp_path):
    proto = model([node("Relu", ["input.1"])])
    proto.graph.input[0].name = "input.1"
    assert imported(proto, tmp_path).inputs[0].name == "input_1"

import pytest
import torch

from compressors.analysis import analyse
from compressors.errors import OptionError
from compressors.surgery import extract, prefix_outputs
from tests.compressors.networks import NETWORKS, graph_of


@pytest.mark.parametrize("name", NETWORKS)
def test_stretch_computes_what_the_graph_computes_there(name):
    graph = graph_of(name)
    x = torch.randn(3, *graph.inputs[0].shape)
    with torch.no_grad():
        for s in analyse(graph).segments:
            entry, wanted = prefix_outputs(graph, [s.entry, s.exit])(x)
            module, (spec,) = extract(graph, s.entry, s.exit)
            assert spec.shape == s.input_shape
            assert torch.equal(module(entry), wanted)


def test_batch_size_is_read_off_the_stretch_itself():
    graph = graph_of("vit")
    module, (spec,) = extract(graph, "patch", "add")
    assert module(torch.randn(7, *spec.shape)).shape == (7, 17, 12)


def test_stretch_from_the_input_to_the_output_is_the_network():
    graph = graph_of("mobilenet")
    module, _ = extract(graph, "x", "head")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(module(x), graph.module(x))


def test_stretch_holds_nothing_else():
    graph = graph_of("resnet-a")
    s = analyse(graph).segments[-1]
    module, _ = extract(graph, s.entry, s.exit)
    assert len([n for n in module.graph.nodes if n.op == "call_module"]) < 8


def test_stretch_that_reads_another_tensor_is_refused():
    graph = graph_of("resnet-a")
    with pytest.raises(OptionError, match="also reads"):
        extract(graph, "layers_0_conv1", "add")


@pytest.mark.parametrize(("entry", "exit_"), [("nowhere", "add"), ("x", "nowhere")])
def test_unknown_ends_are_refused(entry, exit_):
    with pytest.raises(OptionError, match="nowhere"):
        extract(graph_of("resnet-a"), entry, exit_)


def test_prefix_computes_nothing_behind_its_nodes():
    graph = graph_of("vgg")
    names = {node.name for node in prefix_outputs(graph, ["features_5", "features_2"]).graph.nodes}
    assert "features_5" in names
    assert "features_7" not in names


def test_prefix_returns_in_the_order_asked():
    graph = graph_of("vgg")
    x = torch.randn(2, 3, 16, 16)
    late, early = prefix_outputs(graph, ["head" if False else "classifier_5", "features_0"])(x)
    assert torch.equal(late, graph.module(x))
    assert early.shape == (2, 8, 16, 16)


def test_prefix_of_an_unknown_node_is_refused():
    with pytest.raises(OptionError, match="nowhere"):
        prefix_outputs(graph_of("vgg"), ["nowhere"])

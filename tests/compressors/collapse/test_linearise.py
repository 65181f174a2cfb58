import math

import pytest
import torch

from compressors.analysis.sites import find_sites
from compressors.collapse import ChannelLine, Line, identity_line, line_name, linearise, lines, site_statistics
from compressors.errors import OptionError, SurgeryError
from compressors.lift import lift
from compressors.modules import activation_kind
from compressors.shapes import propagate
from compressors.surgery.verify import output_error
from tests.compressors.networks import NETWORKS, exported, graph_of


def sites_of(graph):
    return find_sites(graph.module, propagate(graph.module, graph.inputs))


def weights(graph):
    return {name: value.clone() for name, value in graph.module.state_dict().items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_site_can_go_and_the_original_stays(name):
    graph = graph_of(name)
    before, code = weights(graph), graph.module.code
    found = lines(graph, sites_of(graph), "fitted", site_statistics(graph, [graph.samples(4)]))
    got = linearise(graph, found)
    assert not sites_of(got)
    assert not any(activation_kind(module) for module in got.module.modules())
    assert graph.module.code == code
    assert all(torch.equal(before[key], value) for key, value in graph.module.state_dict().items())
    (inputs,) = graph.samples(3)
    assert got.module(inputs).shape == graph.module(inputs).shape


def test_computes_the_line_in_place_of_the_activation():
    graph = graph_of("resnet-a")
    line = Line(torch.rand(8).double(), torch.randn(8).double(), 1)
    got = linearise(graph, {"relu": line})
    (x,) = graph.samples(2)
    activation = graph.module.get_submodule(str(next(n for n in graph.module.graph.nodes if n.name == "relu").target))
    handle = activation.register_forward_hook(lambda _module, args, _output: ChannelLine(line)(args[0]))
    wanted = graph.module(x)
    handle.remove()
    torch.testing.assert_close(got.module(x), wanted)
    assert isinstance(got.module.get_submodule(line_name("relu")), ChannelLine)


def test_calls_of_a_shared_module_go_one_by_one():
    graph = graph_of("preact")
    names = [site.node for site in sites_of(graph)]
    got = linearise(
        graph,
        {names[1]: identity_line(), names[2]: Line(torch.tensor([0.5]).double(), torch.tensor([0.1]).double(), 1)},
    )
    assert [site.node for site in sites_of(got)] == [names[0], names[3]]
    again = linearise(got, {names[0]: identity_line(), names[3]: identity_line()})
    assert not sites_of(again)


def test_an_identity_leaves_nothing_behind():
    graph = graph_of("vgg")
    got = linearise(graph, {site.node: identity_line() for site in sites_of(graph)})
    assert not any(isinstance(module, ChannelLine) for module in got.module.modules())
    assert len(got.module.graph.nodes) == len(graph.module.graph.nodes) - len(sites_of(graph))


def test_shapes_are_known_without_another_dry_run():
    graph = graph_of("mobilenet")
    got = linearise(graph, lines(graph, sites_of(graph), "gaussian"))
    known = propagate(got.module, got.inputs)
    fresh = propagate(got.copied().module, got.inputs)
    assert known.full == fresh.full
    assert known.dtypes == fresh.dtypes
    assert known.carriers == fresh.carriers


def test_refuses_what_is_no_activation():
    with pytest.raises(OptionError, match="no activation 'conv'"):
        linearise(graph_of("resnet-a"), {"conv": identity_line()})


def test_refuses_another_number_of_channels():
    wrong = Line(torch.ones(5).double(), torch.ones(5).double(), 1)
    with pytest.raises(OptionError, match="5 channels along axis 1"):
        linearise(graph_of("resnet-a"), {"relu": wrong})


def test_refuses_slopes_without_intercepts():
    wrong = Line(torch.ones(8).double(), torch.ones(1).double(), 1)
    with pytest.raises(OptionError, match="8 slopes, 1 intercepts"):
        linearise(graph_of("resnet-a"), {"relu": wrong})


def test_refuses_what_is_not_finite():
    wrong = Line(torch.full((8,), math.nan).double(), torch.ones(8).double(), 1)
    with pytest.raises(OptionError, match="not finite"):
        linearise(graph_of("resnet-a"), {"relu": wrong})


def test_the_result_can_be_exported_and_lifted_again():
    graph = graph_of("resnet-a")
    got = linearise(graph, lines(graph, sites_of(graph), "gaussian"))
    again = lift(exported(got.module, (3, 16, 16)), "again")
    (x,) = graph.samples(3)
    torch.testing.assert_close(again.module(x), got.module(x))


def test_equal_infinities_are_no_disagreement():
    inf = math.inf
    wanted = torch.tensor([1.0, inf, -4.0])
    assert output_error(wanted, torch.tensor([1.0, inf, -3.0])) == 0.25
    assert not output_error(wanted, torch.tensor([1.0, -inf, -4.0])) <= 1e-4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_that_gives_nothing_finite_agrees_with_nothing(value):
    wanted = torch.full((2, 3), value)
    assert not output_error(wanted, wanted.clone()) <= 1e-4


def test_nan_agrees_with_nothing_not_even_with_itself():
    wanted = torch.tensor([1.0, math.nan, -4.0])
    assert not output_error(wanted, wanted.clone()) <= 1e-4


def test_a_network_whose_weights_are_not_finite_is_refused():
    graph = graph_of("resnet-a").copied()
    with torch.no_grad():
        graph.module.get_submodule("head").weight.fill_(math.nan)
    with pytest.raises(SurgeryError, match="off by nan"):
        linearise(graph, {"relu": identity_line()})


def test_exports_to_onnx_as_a_product_and_a_sum():
    model = ChannelLine(Line(torch.rand(3).double(), torch.rand(3).double(), 1)).eval()
    program = torch.onnx.export(model, (torch.randn(2, 3, 4, 4),), dynamo=True, verbose=False)
    assert program is not None
    program.optimize()
    assert [node.op_type for node in program.model.graph] == ["Mul", "Add"]

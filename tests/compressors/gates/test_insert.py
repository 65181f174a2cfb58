from copy import deepcopy

import pytest
import torch
from torch import fx, nn

from compressors.analysis import analyse, merge_space
from compressors.analysis.sites import find_sites
from compressors.channel_line import Line
from compressors.collapse import gaussian_line, linearise, lines, site_statistics
from compressors.errors import OptionError
from compressors.gates import Gate, amounts, gate_lines, gate_name, insert_gates, remove_gates
from compressors.graph import Graph, TensorSpec
from compressors.lift import lift
from compressors.plan import Step
from compressors.shapes import propagate
from compressors.surgery import apply, fold_norms, merge, merge_step
from tests.compressors.networks import NETWORKS, PreActivation, exported, graph_of


def sites_of(graph):
    return find_sites(graph.module, propagate(graph.module, graph.inputs))


def names_of(graph):
    return [site.node for site in sites_of(graph)]


def fitted(graph):
    return lines(graph, sites_of(graph), "fitted", site_statistics(graph, [graph.samples(4)]))


def assert_same(left, right, tolerance=1e-12):
    """Compares in float64, on the weights as they are."""
    left, right = (deepcopy(graph).module.double() for graph in (left, right))
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(left(x), right(x), atol=tolerance, rtol=tolerance)


def traced(model):
    """Returns a graph whose calls share their modules, as lifting would not leave them."""
    specs = TensorSpec("x", (3, 16, 16)), TensorSpec("output", (5,))
    return Graph(fx.symbolic_trace(model.eval()), specs[:1], specs[1:], "traced")


def set_gates(graph, value):
    copy = graph.copied()
    for module in copy.module.modules():
        if isinstance(module, Gate):
            module.amount.data.fill_(value)
    return copy


@pytest.mark.parametrize("name", NETWORKS)
def test_gates_at_zero_change_nothing_and_the_original_stays(name):
    graph = graph_of(name)
    before, code = {k: v.clone() for k, v in graph.module.state_dict().items()}, graph.module.code
    gated = insert_gates(graph, names_of(graph), 0.0, fitted(graph))
    (x,) = graph.samples(3)
    torch.testing.assert_close(gated.module(x), graph.module(x), atol=0, rtol=0)
    assert not sites_of(gated)
    assert list(amounts(gated.module)) == names_of(graph)
    assert graph.module.code == code
    assert all(torch.equal(value, before[key]) for key, value in graph.module.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_at_zero_everything_is_as_before(name):
    graph = graph_of(name)
    back = remove_gates(insert_gates(graph, names_of(graph), 0.3))
    assert sites_of(back) == sites_of(graph)
    assert [str(n) for n in back.module.graph.nodes] == [str(n) for n in graph.module.graph.nodes]
    assert analyse(back) == analyse(graph)
    assert merge_space(back) == merge_space(graph)
    assert_same(back, graph, 0)
    assert_same(fold_norms(back), fold_norms(graph), 0)


@pytest.mark.parametrize("name", ["resnet-b", "mobilenet", "preact", "vit", "mixer", "convnext"])
def test_removed_at_one_it_is_the_linearised_graph(name):
    graph = graph_of(name)
    found = fitted(graph)
    gated = insert_gates(graph, names_of(graph), 1.0, found)
    got = remove_gates(gated, names_of(graph))
    assert not any(isinstance(module, Gate) for module in got.module.modules())
    assert_same(got, gated)
    assert_same(got, linearise(graph, found), 1e-6)


def test_some_go_and_some_stay():
    graph = graph_of("mobilenet")
    names = names_of(graph)
    gated = insert_gates(graph, names, 0.4)
    got = remove_gates(gated, names[1:3])
    assert names_of(got) == [names[0], *names[3:]]
    decided = gated.copied()
    for name, gate in zip(names, (m for m in decided.module.modules() if isinstance(m, Gate)), strict=True):
        gate.amount.data.fill_(float(name in names[1:3]))
    assert_same(got, decided)


def test_calls_of_a_shared_module_have_gates_of_their_own():
    graph = traced(PreActivation())
    names = names_of(graph)
    assert {site.target for site in sites_of(graph)} == {"act"}
    gated = insert_gates(graph, names[1:3], 0.5)
    assert names_of(gated) == [names[0], names[3]]
    assert set(amounts(gated.module)) == set(names[1:3])
    got = remove_gates(gated, [names[1]])
    assert names_of(got) == [names[0], *names[2:]]
    assert {site.target for site in sites_of(got)} == {"act"}
    assert_same(remove_gates(insert_gates(graph, names, 0.7)), graph, 0)


class SharedSlope(nn.Module):
    """One PReLU with a weight, called twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.PReLU(4)

    def forward(self, x):
        return self.act(self.two(self.act(self.one(x))))


@pytest.mark.parametrize("gates", [(0, 1), (0,), (1,)])
def test_a_shared_module_with_weights_is_trained_apart(gates):
    graph = traced(SharedSlope())
    names = [names_of(graph)[index] for index in gates]
    gated = insert_gates(graph, names, 0.0)
    for shift, name in enumerate(names):
        gated.module.get_submodule(gate_name(name)).activation.weight.data.add_(shift + 1)
    back = remove_gates(gated)
    assert names_of(back) == names_of(graph)
    assert_same(back, gated)


@pytest.mark.parametrize("start", [0.0, 0.02, 1.0])
def test_starts_where_it_is_told_to(start):
    graph = graph_of("vgg")
    gated = insert_gates(graph, names_of(graph), start)
    assert list(amounts(gated.module).values()) == pytest.approx([start] * 7)


def test_copies_state_dicts_and_shapes_hold():
    graph = graph_of("resnet-b")
    gated = insert_gates(graph, names_of(graph), 0.2, fitted(graph))
    copy = deepcopy(gated)
    (x,) = graph.samples(2)
    assert torch.equal(copy.module(x), gated.module(x))
    other = set_gates(gated, 0.9)
    other.module.load_state_dict(gated.module.state_dict())
    assert torch.equal(other.module(x), gated.module(x))
    assert propagate(gated.module, gated.inputs).full == propagate(copy.module, copy.inputs).full
    assert remove_gates(copy).module(x).shape == graph.module(x).shape


def test_a_gated_graph_can_be_folded_and_exported():
    graph = graph_of("mobilenet")
    gated = insert_gates(graph, names_of(graph), 0.2, fitted(graph))
    (x,) = graph.samples(2)
    with torch.no_grad():
        torch.testing.assert_close(fold_norms(gated).module(x), gated.module(x), atol=1e-4, rtol=1e-4)
        again = lift(exported(gated.module, (3, 16, 16)), "again")
        torch.testing.assert_close(again.module(x), gated.module(x), atol=1e-5, rtol=1e-5)


def test_plans_of_the_original_apply_to_the_graph_that_comes_back():
    graph = graph_of("mobilenet")
    region = next(r for r in merge_space(graph).regions if len(r.sites) == 2 and len(r.operators) == 3)
    option = region.options[-1]
    gated = insert_gates(graph, region.sites, 1.0, fitted(graph))
    step = merge_step(region, option)
    assert isinstance(step, Step)
    result = merge(apply(remove_gates(gated), [step], gate_lines(gated))).graph
    wanted = merge(apply(graph, [step], {name: fitted(graph)[name] for name in region.sites})).graph
    assert_same(result, wanted, 1e-5)


def test_gate_lines_are_what_was_trained():
    graph = graph_of("vgg")
    name = names_of(graph)[0]
    ones = torch.ones(8)
    gated = insert_gates(graph, [name], 0.5, {name: gaussian_line(nn.ReLU(), 0 * ones, ones, 1)})
    gate = gated.module.get_submodule(gate_name(name))
    gate.line.slope.data.fill_(0.25)
    assert gate_lines(gated)[name].slope.tolist() == [0.25] * 8
    assert gate_lines(gated)[name].axis == 1


def test_published_layer_collapse_puts_a_rectifier_there_first():
    graph = graph_of("vit")
    gated = insert_gates(graph, names_of(graph), 0.01, rectified=True)
    wanted = graph.copied()
    for site in sites_of(graph):
        wanted.module.set_submodule(site.target, nn.PReLU(1, 0.01))
    assert_same(gated, wanted, 1e-6)
    assert {site.kind for site in sites_of(remove_gates(gated))} == {"relu"}


def test_refusals():
    graph = graph_of("vgg")
    name = names_of(graph)[0]
    with pytest.raises(OptionError, match="no activation 'conv'"):
        insert_gates(graph, ["conv"])
    with pytest.raises(OptionError, match="between 0 and 1"):
        insert_gates(graph, [name], 1.5)
    with pytest.raises(OptionError, match="3 channels along axis 1"):
        insert_gates(graph, [name], lines={name: Line(torch.ones(3).double(), torch.ones(3).double(), 1)})
    gated = insert_gates(graph, [name])
    with pytest.raises(OptionError, match="no activation"):
        insert_gates(gated, [name])
    with pytest.raises(OptionError, match="no gate at 'other'"):
        remove_gates(gated, ["other"])

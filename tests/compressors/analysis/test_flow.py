import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx

from compressors.analysis.flow import Region, main_region, side_nodes
from compressors.graph import TensorSpec
from compressors.shapes import propagate

SPEC = (TensorSpec("x", (2,)),)


@st.composite
def graphs(draw):
    """Random graphs of sums: every node reads one to three of those before it, the last all that nobody has read."""
    graph = fx.Graph()
    nodes = [graph.placeholder("x")]
    for _ in range(draw(st.integers(1, 9))):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        nodes.append(graph.call_function(torch.stack, (sources,)))
        nodes[-1] = graph.call_function(torch.sum, (nodes[-1], 0))
    loose = [node for node in nodes if not node.users]
    graph.output(graph.call_function(torch.sum, (graph.call_function(torch.stack, (loose,)), 0)))
    return fx.GraphModule(torch.nn.Module(), graph)


def paths(start, end, members):
    if start is end:
        return [[end]]
    return [[start, *rest] for user in start.users if user in members for rest in paths(user, end, members)]


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_cuts_are_what_all_paths_share(module):
    region = main_region(module, propagate(module, SPEC))
    found = paths(region.nodes[0], region.nodes[-1], set(region.nodes))
    assert set(region.cuts()) == set.intersection(*map(set, found))


@settings(max_examples=50, deadline=None)
@given(graphs(), st.data())
def test_part_between_a_cut_and_a_node_holds_all_paths(module, data):
    region = main_region(module, propagate(module, SPEC))
    start = data.draw(st.sampled_from(region.cuts()))
    assume(region.index[start] + 1 < len(region.nodes))
    end = data.draw(st.sampled_from(region.nodes[region.index[start] + 1 :]))
    part = region.between(start, end)
    expected = {node for path in paths(start, end, set(region.nodes)) for node in path}
    assert set(part.nodes) == expected
    assert list(part.nodes) == sorted(part.nodes, key=region.index.__getitem__)


def traced(function):
    return fx.symbolic_trace(function)


def test_sizes_and_weights_carry_no_data():
    class Sized(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.ones(1, 2))

        def forward(self, x):
            return torch.relu(x) + self.table.expand(x.size(0), 2)

    module = traced(Sized())
    region = main_region(module, propagate(module, SPEC))
    assert [node.name for node in region.nodes] == ["x", "relu", "add", "output"]
    inside = [node for node in region.nodes if node.name == "add"]
    assert {node.name for node in side_nodes(inside, region.index)} == {"table", "expand", "size"}


def test_side_nodes_that_others_read_stay_outside():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.ones(1, 2))

        def forward(self, x):
            return torch.relu(x + self.table) * self.table

    module = traced(Table())
    region = main_region(module, propagate(module, SPEC))
    assert side_nodes([node for node in region.nodes if node.name == "add"], region.index) == set()


def test_region_of_several_inputs_cuts_where_they_have_met():
    module = traced(lambda x, y: torch.relu(torch.relu(x) + y))
    region = main_region(module, propagate(module, (*SPEC, TensorSpec("y", (2,)))))
    assert [node.name for node in Region(region.nodes).cuts()] == ["add", "relu_1", "output"]

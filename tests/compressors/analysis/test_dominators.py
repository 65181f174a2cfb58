import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from compressors.analysis import analyse
from compressors.analysis.dominators import find_links
from compressors.analysis.flow import Region
from tests.compressors.networks import lifted


def region_of(edges, count):
    """A region of `count` nodes; node i reads the nodes listed in edges[i], the last one is the output."""
    graph = fx.Graph()
    nodes = [graph.placeholder("source")]
    for index in range(1, count):
        nodes.append(graph.call_function(torch.add, tuple(nodes[i] for i in sorted(edges[index]))))
    return Region(tuple(nodes)), nodes


def reachable(nodes, start, without=None):
    seen, pending = set(), [start]
    while pending:
        node = pending.pop()
        if node is without or node in seen:
            continue
        seen.add(node)
        pending.extend(node.users)
    return seen


def is_link(nodes, u, v):
    """By definition: cut u out and v is out of reach, cut v out and nothing behind is reached from u; no closer v."""

    def spans(v):
        dominates = v not in reachable(nodes, nodes[0], without=u)
        return dominates and nodes[-1] not in reachable(nodes, u, without=v)

    between = nodes[nodes.index(u) + 1 : nodes.index(v)]
    return spans(v) and not any(spans(w) for w in between)


@st.composite
def networks(draw):
    count = draw(st.integers(3, 9))
    edges = {i: set(draw(st.lists(st.integers(0, i - 1), min_size=1, max_size=3))) for i in range(1, count)}
    # Every node but the last is read, so that each lies on a path.
    for i in range(count - 1):
        if not any(i in edges[j] for j in range(i + 1, count)):
            edges[draw(st.integers(i + 1, count - 1))].add(i)
    return edges, count


@settings(max_examples=150, deadline=None, derandomize=True)
@given(networks())
def test_links_are_what_the_definition_says(network):
    region, nodes = region_of(*network)
    found = find_links(region).next
    for i, u in enumerate(nodes):
        for v in nodes[i + 1 :]:
            assert (found.get(u) is v) == is_link(nodes, u, v)


class UNet(nn.Module):
    """Two levels with a skip that jumps over everything, and a time step that every block reads."""

    def __init__(self):
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (8, 8, 16))
        self.inner = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.times = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Conv2d(8, 3, 3, padding=1)

    def block(self, i, x, t):
        y = self.blocks[i](torch.relu(x)) + self.times[i](torch.relu(t))[:, :, None, None]
        return self.inner[i](torch.relu(y))

    def forward(self, sample, step):
        t = self.time(step.float().unsqueeze(-1))
        x = self.stem(sample)
        y = x + self.block(0, x, t)
        z = y + self.block(1, y, t)
        return self.out(self.block(2, torch.cat([z, x], 1), t))


def unet():
    return lifted(UNet(), (3, 8, 8), ())


def test_blocks_are_found_though_skips_and_the_time_step_jump_over_everything():
    found = {(s.entry, s.exit) for s in analyse(unet()).segments if s.removable}
    assert ("stem", "add_1") in found
    assert ("add_1", "add_3") in found


def test_stretch_that_reads_a_side_input_cannot_be_regressed_and_says_so():
    analysis = analyse(unet())
    sums = {"add", "add_2", "add_4"}
    assert not [s for s in analysis.segments if s.kernels and sums & set(s.nodes)]
    refusal = next(r for r in analysis.refusals if r.code == "reads-side-input")
    assert "another input" in refusal.reason


def test_chain_inside_a_block_knows_the_chain_around_it():
    parents = {chain.name: chain.parent for chain in analyse(unet()).chains}
    assert parents["inner_0"] == ("add_3", 0, 1)
    assert parents["inner_1"] == ("add_3", 1, 2)
    assert parents["add_3"] == ("main", 1, 2)

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import Limits, analyse
from tests.compressors.networks import NETWORKS, graph_of, lifted


def neighbours(analysis, chain="main"):
    return [s for s in analysis.segments if s.chain == chain and s.end == s.start + 1]


def cuttable(analysis):
    """Segments between neighbouring positions of the main chain that hold an activation."""
    return [s for s in neighbours(analysis) if s.sites]


def codes(analysis):
    return {refusal.code for refusal in analysis.refusals}


def segment(analysis, name):
    (found,) = [s for s in analysis.segments if s.name == name and s.end == s.start + 1]
    return found


def by_paths(module):
    """All nodes on every path from the placeholders to the output, by listing the paths: slow and obvious."""
    paths = []

    def follow(node, path):
        if node.op == "output":
            paths.append(path)
        for user in node.users:
            if user.target is not torch.ops.aten.sym_size.int:
                follow(user, [*path, user])

    for node in module.graph.nodes:
        if node.op == "placeholder":
            follow(node, [node])
    common = set(paths[0]).intersection(*map(set, paths[1:]))
    return {node.name for node in common}


@pytest.mark.parametrize("name", ["resnet-a", "resnet-b", "mobilenet-se", "vgg", "convnext", "mixer", "branches"])
def test_main_chain_lies_on_every_path(name):
    graph = graph_of(name)
    main = analyse(graph).chains[0]
    on_all = by_paths(graph.module)
    names = {position.target for position in main.positions} | {position.output for position in main.positions}
    assert names <= on_all
    assert main.positions[0].output == "x"
    assert main.parent is None


@pytest.mark.parametrize("name", NETWORKS)
def test_segments_hold_together(name):
    graph = graph_of(name)
    analysis = analyse(graph)
    nodes = {node.name: node for node in graph.module.graph.nodes}
    order = {name: index for index, name in enumerate(nodes)}
    for s in analysis.segments:
        inside = set(s.nodes)
        assert s.exit in inside
        assert s.entry not in inside
        assert list(s.nodes) == sorted(s.nodes, key=order.__getitem__)
        for name_ in inside - {s.exit}:
            assert {user.name for user in nodes[name_].users} <= inside, "a tensor inside is read outside"
        for name_ in inside:
            for source in nodes[name_].all_input_nodes:
                assert source.name in inside | {s.entry} or source.op == "get_attr" or "sym_size" in source.name
        assert s.kernels or s.removable
        assert not s.removable or s.input_shape == s.output_shape
        assert all(len(kernel) == len(s.stride) for kernel in s.kernels)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_segment_is_found_once(name):
    ends = [(s.entry, s.exit) for s in analyse(graph_of(name)).segments]
    assert len(ends) == len(set(ends))


def test_sites_are_all_activations_with_their_shapes():
    sites = analyse(graph_of("mobilenet")).sites
    assert [s.kind for s in sites] == ["relu6"] * 7
    assert (sites[0].target, sites[0].shape) == ("stem.2", (8, 8, 8))


@pytest.mark.parametrize("name", ["resnet-a", "resnet-b"])
def test_residual_blocks_are_found_whatever_their_shortcut(name):
    found = cuttable(analyse(graph_of(name)))
    assert [s.name for s in found] == ["layers.0", "layers.1", "layers.2"]
    assert [s.input_shape for s in found] == [(8, 16, 16), (8, 16, 16), (16, 8, 8)]
    assert [s.stride for s in found] == [(1, 1), (2, 2), (1, 1)]
    assert [s.removable for s in found] == [True, False, True]
    assert [s.kernels for s in found] == [((1, 1), (3, 3), (5, 5)), ((3, 3), (5, 5)), ((1, 1), (3, 3), (5, 5))]


def test_activation_after_a_block_stays():
    block = cuttable(analyse(graph_of("resnet-a")))[1]
    main = analyse(graph_of("resnet-a")).chains[0].positions
    assert block.exit == main[block.end].target
    assert main[block.end].output not in block.nodes
    assert len(block.sites) == 1


def test_pre_activation_blocks_are_found():
    found = cuttable(analyse(graph_of("preact")))
    assert [(s.kernels[-1], s.removable, len(s.sites)) for s in found] == [((5, 5), True, 2)] * 2


def test_inverted_residuals_are_found_and_their_kernel_does_not_grow():
    analysis = analyse(graph_of("mobilenet"))
    for name, removable in [("blocks.0", True), ("blocks.2", True)]:
        block = segment(analysis, name)
        assert block.kernels == ((1, 1), (3, 3))
        assert block.removable is removable
    (strided,) = [s for s in analysis.segments if s.name == "blocks.1"]
    assert (strided.kernels, strided.stride, strided.output_shape) == (((3, 3),), (2, 2), (12, 4, 4))


def test_inside_an_inverted_residual_its_own_chain_has_segments():
    analysis = analyse(graph_of("mobilenet"))
    (chain,) = [c for c in analysis.chains if c.name == "blocks.0"]
    assert chain.parent is not None
    inner = [s for s in analysis.segments if s.chain == chain.name and s.kernels]
    assert {(s.name, s.kernels) for s in inner} == {
        ("blocks.0.expand..blocks.0.depth", ((1, 1), (3, 3))),
        ("blocks.0.depth..blocks.0.project", ((1, 1), (3, 3))),
    }


def test_squeeze_and_excitation_is_an_approximation():
    block = segment(analyse(graph_of("mobilenet-se")), "blocks.0")
    assert block.approximates == ("global-context",)
    assert segment(analyse(graph_of("mobilenet")), "blocks.0").approximates == ()


def test_chain_of_convolutions_stops_at_max_pools():
    analysis = analyse(graph_of("vgg"))
    names = {s.name for s in analysis.segments if s.kernels}
    assert "features.0..features.4" in names
    assert "features.7..features.11" in names
    assert "features.7..features.14" in names
    assert not any(s.entry == "features_2" and "max_pool" in " ".join(s.nodes) for s in analysis.segments)
    assert "crosses-max-pool" in codes(analysis)


def test_kernels_do_not_exceed_the_receptive_field_or_the_limit():
    analysis = analyse(graph_of("vgg"), Limits(kernel=9))
    three = next(s for s in analysis.segments if s.name == "features.7..features.14")
    assert three.kernels[-1] == (7, 7)
    capped = analyse(graph_of("vgg"), Limits(kernel=3))
    assert max(k[0] for s in capped.segments for k in s.kernels if k) == 3


def test_classifier_head_is_a_linear_segment():
    head = [s for s in analyse(graph_of("vgg")).segments if s.kernels == ((),)]
    assert ("flatten", "classifier_5") in {(s.entry, s.exit) for s in head}
    assert all(s.stride == () for s in head)


def test_mlp_blocks_of_a_transformer_become_linears_and_attention_can_only_go():
    analysis = analyse(graph_of("vit"))
    mlps = [s for s in neighbours(analysis) if s.kernels]
    attention = [s for s in neighbours(analysis) if not s.kernels]
    assert [s.kernels for s in mlps] == [((),)] * 2
    assert [s.removable for s in mlps + attention] == [True] * 4
    assert "crosses-attention" in codes(analysis)
    inner = [s for s in analysis.segments if s.chain != "main" and s.kernels]
    assert [s.operators for s in inner] == [("mlps_0_fc1", "mlps_0_fc2"), ("mlps_1_fc1", "mlps_1_fc2")]


def test_class_token_is_not_crossed():
    analysis = analyse(graph_of("vit"))
    cat = next(node.name for node in graph_of("vit").module.graph.nodes if node.name.startswith("cat"))
    assert not any(cat in s.nodes for s in analysis.segments)


def test_both_mlps_of_a_mixer_become_linears():
    analysis = analyse(graph_of("mixer"))
    linears = {s.operators: s for s in analysis.segments if s.kernels == ((),)}
    assert linears[("tokens_fc1", "tokens_fc2")].input_shape == (12, 16)
    assert linears[("features_fc1", "features_fc2")].input_shape == (16, 12)


def test_mixing_of_tokens_is_a_convolution_whose_channels_are_the_tokens():
    analysis = analyse(graph_of("mixer"))
    whole = next(s for s in neighbours(analysis) if "tokens_fc1" in s.operators)
    assert (whole.input_shape, whole.kernels) == ((16, 12), ((1,),))
    assert whole.approximates == ("global-context",)


def test_channels_last_block_between_channels_first_tensors_is_found():
    analysis = analyse(graph_of("convnext"))
    block = next(s for s in neighbours(analysis) if s.sites)
    assert (block.input_shape, block.kernels, block.removable) == ((8, 8, 8), ((1, 1), (3, 3), (5, 5)), True)


def test_branches_of_a_concatenation_have_chains_of_their_own():
    analysis = analyse(graph_of("branches"))
    branch = next(s for s in analysis.segments if s.operators == ("two_0", "two_2"))
    assert branch.kernels == ((1, 1), (3, 3))
    assert branch.chain != "main"


def test_shared_convolution_is_refused_by_name_unless_all_its_calls_go():
    analysis = analyse(graph_of("shared"))
    shared = [r for r in analysis.refusals if r.code == "shared-module"]
    assert shared
    assert "'body'" in shared[0].reason
    for s in analysis.segments:
        assert sum(name.startswith("body") for name in s.operators) in {0, 2}


class Dense(nn.Module):
    """Every layer reads all layers before it."""

    def __init__(self, depth=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4 * (i + 1), 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)) for i in range(depth)
        )

    def forward(self, x):
        parts = [self.stem(x)]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, 1)))
        return torch.cat(parts, 1)


def test_tensor_that_is_read_elsewhere_is_not_swallowed():
    analysis = analyse(lifted(Dense(), (3, 8, 8)))
    inner = {s.operators for s in analysis.segments if s.kernels}
    assert ("layers_1_0", "layers_1_2") in inner
    assert "used-elsewhere" in codes(analysis)


def test_span_limits_how_far_segments_reach():
    graph = graph_of("preact")
    assert max(s.end - s.start for s in analyse(graph, Limits(span=1)).segments) == 1
    assert max(s.end - s.start for s in analyse(graph, Limits(span=2)).segments) == 2


class Body(nn.Module):
    """stem -> function -> add, to see one operator inside a residual block."""

    def __init__(self, inside, width=4):
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(cin, width, 3, padding=1) for cin in (3, width, width))
        self.inside = inside

    def forward(self, x):
        x = self.stem(x)
        return x + self.two(self.inside(F.relu(self.one(x))))


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        (lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2), "crosses-resize"),
        (lambda x: F.max_pool2d(x, 3, 1, 1), "crosses-max-pool"),
        (lambda x: torch.softmax(x, 1), "crosses-attention"),
        (lambda x: x.flip(2), "unknown-operator"),
        (lambda x: x.transpose(2, 3), "changes-layout"),
        (lambda x: torch.cat([x[:, :, 1:], x[:, :, :1]], 2), "crops"),
        (lambda x: x * torch.linspace(0, 1, 8), "position-dependent"),
    ],
)
def test_what_one_convolution_cannot_do_is_refused_with_its_code(inside, code):
    analysis = analyse(lifted(Body(inside), (3, 8, 8)))
    assert code in codes(analysis)
    block = next(s for s in neighbours(analysis) if "one" in s.operators)
    assert block.kernels == ()
    assert block.removable


def shuffle(x):
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@pytest.mark.parametrize(
    "inside",
    [
        shuffle,
        lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: x.permute(0, 2, 3, 1).mul(2).permute(0, 3, 1, 2),
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
        lambda x: x * x.norm(2, (2, 3), keepdim=True) + x.sum(1, keepdim=True),
        lambda x: x.flatten(2).mul(2).unflatten(2, (8, 8)),
        lambda x: x.clamp(-1, 1) - x.abs(),
    ],
)
def test_what_acts_on_a_neighbourhood_is_accepted(inside):
    analysis = analyse(lifted(Body(inside), (3, 8, 8)))
    block = next(s for s in neighbours(analysis) if "one" in s.operators)
    assert block.kernels[-1] == (5, 5)


def test_refusals_are_sentences():
    for name in NETWORKS:
        for refusal in analyse(graph_of(name)).refusals:
            assert refusal.reason.endswith(".")
            assert refusal.where in refusal.reason


def test_two_inputs_meet_before_the_main_chain_starts():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x, y):
            return self.three(F.gelu(self.two(self.one(x) + y)))

    analysis = analyse(lifted(Pair(), (4,), (4,)))
    assert analysis.chains[0].positions[0].output == "add"
    assert ("two", "three") in {s.operators for s in analysis.segments}

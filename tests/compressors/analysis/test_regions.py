import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.analysis.geometry import Padding
from compressors.analysis.merges import Options
from compressors.analysis.regions import Reach, merge_space
from compressors.sources import ModelSource, load
from tests.compressors.networks import NETWORKS, graph_of, lifted

PUBLISHED = Reach(span=100, stages=True, options=Options(kernel=99, strided_growth=False))
"""LayerMerge's rules: no limit on length or kernel, its breaks, strided operators apart."""


def published_space(name, first, last):
    """The published search space: the published code leaves alone what lies before `first` and behind `last`."""
    graph = load(ModelSource("named", name=name, options={"random_weights": True}))
    regions = merge_space(graph, PUBLISHED).regions
    order = {node.name: index for index, node in enumerate(graph.module.graph.nodes)}
    return [r for r in regions if order[r.entry] >= order[first] and order[r.exit] <= order[last]]


def test_search_space_of_resnet34_is_layermerges():
    space = published_space("torchvision:resnet34", "max_pool2d", "add_15")
    assert len(space) == 62
    assert sum(len(r.options) for r in space) == 150
    assert max(len(r.operators) for r in space) == 10
    assert max(max(o.kernel) for r in space for o in r.options) == 21


def test_search_space_of_mobilenet_v2_is_layermerges():
    space = published_space("torchvision:mobilenet_v2", "features_0_2", "features_17_conv_3")
    assert len(space) == 171
    assert sum(len(r.options) for r in space) == 391
    assert max(len(r.operators) for r in space) == 21
    assert max(max(o.kernel) for r in space for o in r.options) == 15


@pytest.mark.slow
def test_search_space_of_the_ddpm_unet_is_layermerges():
    """52 convolutions, conv_out left alone; the published code also lets an upsampling convolution go (3 entries more).

    There a pruned operator may be all there is; here at least one stays, and passing a tensor on is removal. Regions
    that hold a shortcut's convolution or an attention's linears are left out: the published code never touches them.
    """
    space = published_space("diffusers:ddpm-cifar10", "sample", "conv_out")
    aside = ("conv_shortcut", "to_q", "to_k", "to_v", "to_out", "conv_out", "time_emb")
    space = [r for r in space if not any(word in name for name in r.operators for word in aside)]
    assert len(space) == 73
    assert sum(len(r.options) for r in space) == 98 - 3
    assert max(len(r.operators) for r in space) == 2
    assert max(max(o.kernel) for r in space for o in r.options) == 5
    graph = load(ModelSource("named", name="diffusers:ddpm-cifar10", options={"random_weights": True}))
    removable = {s.exit for s in analyse(graph).segments if s.removable}
    assert len([name for name in removable if "upsamplers" in name]) == 3


def test_without_the_published_breaks_strided_blocks_are_regions_too():
    graph = graph_of("resnet-b")
    wide = {(r.entry, r.exit) for r in merge_space(graph, Reach(options=Options(kernel=99))).regions}
    narrow = {(r.entry, r.exit) for r in merge_space(graph, PUBLISHED).regions}
    assert narrow < wide
    strided = {node.name for node in graph.module.graph.nodes if "down" in node.name}
    assert strided
    assert all(
        any(name in r.nodes for name in strided) for r in merge_space(graph).regions if (r.entry, r.exit) not in narrow
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_regions_have_one_entry_and_one_exit(name):
    graph = graph_of(name)
    nodes = {node.name: node for node in graph.module.graph.nodes}
    for region in merge_space(graph).regions:
        inside = set(region.nodes)
        assert all(user.name in inside for n in inside - {region.exit} for user in nodes[n].users)
        for n in inside:
            for source in nodes[n].all_input_nodes:
                assert source.name in inside | {region.entry} or source.op == "get_attr" or "sym_size" in source.name


def options_of(module, *shapes, reach=None):
    regions = merge_space(lifted(module, *shapes), reach).regions
    return max(regions, key=lambda r: len(r.nodes)).options


def pair(first, second):
    return nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second)


@pytest.mark.parametrize(
    ("first", "second", "kernel", "padding"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 6, 1), (3, 3), Padding.KEEP),
        (nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), (5, 5), Padding.FIRST),
        (nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 3, padding=1), (3, 3), Padding.BIAS_MAP),
        (nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 6, 3), (5, 5), Padding.KEEP),
        (nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, padding=1), (7, 7), Padding.FIRST),
        (nn.Conv2d(4, 4, (1, 3), padding=(0, 1)), nn.Conv2d(4, 6, (3, 1), padding=(1, 0)), (3, 3), Padding.BIAS_MAP),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 6, 3, padding=2, dilation=2), (5, 5), Padding.FIRST),
    ],
)
def test_kernel_and_what_makes_a_pair_exact(first, second, kernel, padding):
    options = options_of(pair(first, second), (4, 16, 16))
    whole = next(o for o in options if not o.pruned)
    assert (whole.kernel, whole.padding) == (kernel, padding)


def test_of_a_class_the_operators_with_the_smallest_weights_go_first():
    small, large = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        small.weight.mul_(0.01)
    options = options_of(nn.Sequential(small, nn.ReLU(), large), (4, 8, 8))
    assert [(o.kernel, o.pruned) for o in options] == [((3, 3), ("_0",)), ((5, 5), ())]


def test_depthwise_operators_stay_depthwise_when_merged():
    first, second = (nn.Conv2d(4, 4, 3, padding=1, groups=4) for _ in range(2))
    options = options_of(nn.Sequential(first, nn.ReLU(), second), (4, 8, 8))
    assert {o.groups for o in options} == {4}
    assert options[-1].macs == 8 * 8 * 4 * 25


def test_kernels_beyond_the_limit_are_not_offered():
    layers = [layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    options = options_of(nn.Sequential(*layers), (4, 16, 16), reach=Reach(options=Options(kernel=5)))
    assert [o.kernel for o in options] == [(3, 3), (5, 5)]


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)) * x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("inside", "code", "words"),
    [
        (Gate(), "not-affine", "holds something that is not affine"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "not-affine", "zeros"),
        (
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
            "not-affine",
            "different sizes",
        ),
    ],
)
def test_what_cannot_become_affine_is_refused_in_words(inside, code, words):
    space = merge_space(lifted(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), inside, nn.Conv2d(4, 4, 1)), (4, 8, 8)))
    assert any(r.code == code and words in r.reason for r in space.refusals)
    assert all(r.reason.endswith(".") for r in space.refusals)


class Norms(nn.Module):
    """A norm that looks at the sample between two convolutions, as in diffusion models."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x):
        return self.two(F.silu(self.norm(self.one(x))))


def test_norms_that_look_at_the_sample_are_named_as_dissolving():
    (region,) = [r for r in merge_space(lifted(Norms(), (4, 8, 8))).regions if len(r.operators) == 2]
    assert region.norms == ("norm",)
    assert not region.changes_nothing

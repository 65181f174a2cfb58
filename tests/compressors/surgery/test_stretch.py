import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.analysis.geometry import Padding
from compressors.analysis.merges import Options
from compressors.analysis.regions import Reach, merge_space
from compressors.channel_line import Line
from compressors.errors import OptionError
from compressors.plan import Plan, Step
from compressors.shapes import output_nodes
from compressors.surgery import apply, merge
from compressors.surgery.verify import relative_error
from tests.compressors.networks import NETWORKS, graph_of, lifted, randomise


def step_of(region, option):
    padding = "first" if option.padding is Padding.FIRST else "keep"
    sites = (*region.sites, *region.norms)
    return Step("merge", region.entry, region.exit, option.kernel, option.stride, sites, option.pruned, padding=padding)


def everything(graph, kernel=9):
    for region in merge_space(graph, Reach(options=Options(kernel=kernel))).regions:
        if not region.changes_nothing:
            yield from ((region, option) for option in region.options)


def whole(graph, kernel=(), stride=(), sites=(), **settings):
    """The step that merges everything from the input to the output."""
    nodes = list(graph.module.graph.nodes)
    return Step("merge", nodes[0].name, output_nodes(graph.module)[0].name, kernel, stride, sites, **settings)


OPERATOR = (("kernel_size", ()), ("stride", ()), ("groups", 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_train_form_and_deployed_form_are_one_function_and_the_promised_operator(name):
    graph = graph_of(name)
    x = graph.samples(2, seed=5)
    for region, option in everything(graph):
        trained = apply(graph, [step_of(region, option)])
        merged = merge(trained)
        with torch.no_grad():
            wanted, got = trained.module(*x), merged.graph.module(*x)
        assert relative_error(wanted, got) < 1e-5
        assert max(proof.error for proof in merged.verifications) < 1e-10
        inside = merged.graph.module.get_submodule(f"cut_{region.exit}.stretch")
        operator = next(m for m in inside.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear))
        found = (getattr(operator, name, default) for name, default in OPERATOR)
        assert tuple(found) == (option.kernel, option.stride, option.groups)


def test_the_graph_that_is_cut_does_not_change():
    graph = graph_of("resnet-a")
    before = {key: value.clone() for key, value in graph.module.state_dict().items()}
    region, option = next(iter(everything(graph)))
    merge(apply(graph, [step_of(region, option)]))
    after = graph.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


class Bottleneck(nn.Module):
    """Pointwise, depthwise, pointwise and a skip: merges exactly, with a bias that depends on the position."""

    def __init__(self):
        super().__init__()
        self.expand, self.depth, self.project = (
            nn.Conv2d(4, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x):
        return x + self.project(self.depth(self.expand(x)))


def test_where_padding_is_kept_the_networks_function_stays_as_it_was():
    model = Bottleneck()
    graph = lifted(model, (4, 8, 8))
    merged = merge(apply(graph, [whole(graph, (3, 3), (1, 1))]))
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert relative_error(model(x), merged.graph.module(x)) < 1e-6


def test_border_of_padding_kept_in_two_convolutions_is_refused():
    graph = lifted(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)), (4, 8, 8))
    trained = apply(graph, [whole(graph, (5, 5), (1, 1))])
    with pytest.raises(Exception, match="reads padding"):
        merge(trained)


def test_pad_first_changes_the_border_only():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    graph = lifted(model, (4, 8, 8))
    trained = apply(graph, [whole(graph, (5, 5), (1, 1), padding="first")])
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        wanted, got = model(x), trained.module(x)
    assert torch.allclose(wanted[..., 1:-1, 1:-1], got[..., 1:-1, 1:-1], atol=1e-6)
    assert not torch.allclose(wanted, got, atol=1e-3)


def test_worked_example_of_padding_first():
    """Taps [1, 2, 3] then [1, 0, -1] on 1..5, both padded by one: -11 -12 -12 6 21, where the pair gives -14 ... 26."""
    first, second = nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Conv1d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[[1.0, 2, 3]]]))
        second.weight.copy_(torch.tensor([[[1.0, 0, -1]]]))
    graph = lifted(nn.Sequential(first, second), (1, 5))
    trained = apply(graph, [whole(graph, (5,), (1,), padding="first")])
    x = torch.arange(1.0, 6).reshape(1, 1, 5)
    for module in (trained.module, merge(trained).graph.module):
        assert module(x).flatten().tolist() == pytest.approx([-11, -12, -12, 6, 21], abs=1e-5)


class TimeBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.embed, self.mix = nn.Linear(6, 6), nn.Linear(6, 5)
        self.one, self.two = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
        self.other = nn.Linear(6, 4)

    def forward(self, x, t):
        x, t = self.stem(x), self.embed(t)
        y = self.one(x) + self.mix(F.silu(t))[:, :, None, None]
        return x + self.two(F.silu(y)) + self.other(t)[:, :, None, None]


def test_time_embedding_between_two_convolutions_is_carried_along():
    graph = lifted(randomise(TimeBlock()), (3, 8, 8), (6,))
    (region,) = [r for r in merge_space(graph).regions if set(r.operators) == {"one", "two"} and r.sites]
    (option,) = region.options
    assert option.padding is Padding.FIRST
    trained = apply(graph, [step_of(region, option)])
    merged = merge(trained).graph.module
    x = graph.samples(3)
    with torch.no_grad():
        assert relative_error(trained.module(*x), merged(*x)) < 1e-5
    assert "one" not in dict(merged.named_modules())


class Branches(nn.Module):
    """RepVGG in training: 3x3, 1x1 and identity, each with its norm."""

    def __init__(self):
        super().__init__()
        self.dense, self.point = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x):
        return self.norms[0](self.dense(x)) + self.norms[1](self.point(x)) + self.norms[2](x)


def test_parallel_branches_become_one_convolution_without_loss():
    model = randomise(nn.Sequential(Branches(), nn.ReLU(), Branches())).eval()
    graph = lifted(model, (4, 8, 8))
    (block, *_) = [r for r in merge_space(graph).regions if len(r.operators) == 2 and not r.sites]
    merged = merge(apply(graph, [step_of(block, block.options[-1])]))
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert relative_error(model(x), merged.graph.module(x)) < 1e-6


class Stacked(nn.Module):
    """Branches of different kernels, joined by channels, behind a shortcut that halves and pads."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        return torch.cat([self.one(x), self.two(x)], 1) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))


def test_concatenation_slices_and_channel_padding_are_affine():
    model = Stacked().eval()
    graph = lifted(model, (4, 8, 8))
    merged = merge(apply(graph, [whole(graph, (3, 3), (2, 2))]))
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert relative_error(model(x), merged.graph.module(x)) < 1e-6


def test_lines_take_the_place_of_activations():
    graph = lifted(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 4, 4))
    slope, intercept = torch.rand(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    (site,) = (site.node for site in analyse(graph).sites)
    step = whole(graph, (1, 1), (1, 1), (site,))
    trained = apply(graph, [step], {site: Line(slope, intercept, 1)})
    x = torch.randn(2, 3, 4, 4)
    first, second = graph.module.get_submodule("0"), graph.module.get_submodule("2")
    with torch.no_grad():
        wanted = second(first(x) * slope.float()[:, None, None] + intercept.float()[:, None, None])
        assert torch.allclose(trained.module(x), wanted, atol=1e-6)
        assert relative_error(wanted, merge(trained).graph.module(x)) < 1e-6


def test_branch_that_is_pruned_whole_adds_nothing():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(4, 4, 1)
            self.inner = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.last(x + self.inner(x))

    model = Block()
    graph = lifted(model, (4, 8, 8))
    merged = merge(apply(graph, [Step("merge", "x", "last", (1, 1), (1, 1), pruned=("inner",))]))
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert relative_error(model.last(x), merged.graph.module(x)) < 1e-6


def test_activation_that_the_step_leaves_is_refused():
    graph = lifted(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 4, 4))
    with pytest.raises(OptionError, match="not affine"):
        apply(graph, [whole(graph, (1, 1), (1, 1))])


def test_step_that_names_what_lies_elsewhere_is_refused():
    graph = lifted(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 4, 4))
    with pytest.raises(OptionError, match="outside"):
        apply(graph, [whole(graph, (1, 1), (1, 1), ("nowhere",))])


def test_merge_steps_survive_json():
    step = Step("merge", "a", "b", (5, 5), (1, 1), ("r",), ("c",), "fitted", "first")
    assert Plan.from_json(Plan("layer_merge", (step,)).to_json()).steps == (step,)


class ClassToken(nn.Module):
    """Tokens that a learnt vector per sample is added to, as class attention does."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        token = self.token.expand(x.shape[0], -1, -1)
        y = token + self.first(x.mean(1, keepdim=True))
        return torch.cat([y + self.second(torch.relu(y)), x], dim=1)


def test_side_inputs_of_linears_on_tokens_keep_the_batch_apart():
    torch.manual_seed(0)
    graph = lifted(ClassToken(), (4, 6))
    steps = [step_of(*one) for one in everything(graph)]
    assert steps
    for step in steps:
        unmerged = apply(graph, [step])
        merged = merge(unmerged).graph
        x = graph.samples(3)
        with torch.no_grad():
            wanted, got = unmerged.module(*x), merged.module(*x)
        assert wanted.shape == (3, 5, 6)
        assert relative_error(wanted, got) <= 1e-5


def test_tensors_of_other_shapes_differ_without_bound():
    assert relative_error(torch.ones(2, 1, 3), torch.ones(2, 2, 3)) == float("inf")

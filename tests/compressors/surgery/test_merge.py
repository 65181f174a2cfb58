import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.modules import BATCH_NORMS
from compressors.plan import Step
from compressors.surgery import Verification, agreement, apply, fold_norms, merge
from tests.compressors.networks import NETWORKS, graph_of, lifted, randomise


def norms(graph):
    return [m for m in graph.module.modules() if isinstance(m, BATCH_NORMS)]


@pytest.mark.parametrize("name", NETWORKS)
def test_merged_graph_computes_the_same(name):
    graph = graph_of(name)
    found = agreement(graph.module, merge(graph).graph.module, [graph.samples(4)])
    assert found.relative < 1e-5
    assert found.top1 == 1
    assert found.samples == 4


@pytest.mark.parametrize("name", ["resnet-a", "resnet-b", "mobilenet-se", "vgg"])
def test_every_norm_behind_a_convolution_goes_with_proof(name):
    graph = graph_of(name)
    merged = merge(graph)
    assert len(merged.verifications) == len(norms(graph)) > 0
    assert norms(merged.graph) == []
    assert all(proof.error <= 1e-10 for proof in merged.verifications)


def test_norm_before_a_convolution_stays():
    graph = graph_of("preact")
    merged = merge(graph)
    assert len(norms(merged.graph)) == 2
    assert len(merged.verifications) == 2


def test_input_stays_as_it_is():
    graph = graph_of("vgg")
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    fold_norms(graph)
    after = graph.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("pair", "shape"),
    [
        ((nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (3, 9)),
        ((nn.Conv2d(4, 6, 3, 2, 1, groups=2, bias=False), nn.BatchNorm2d(6)), (4, 9, 9)),
        ((nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4, affine=False)), (2, 4, 4, 4)),
        ((nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.BatchNorm2d(6)), (4, 5, 5)),
        ((nn.ConvTranspose1d(4, 6, 3, bias=False), nn.BatchNorm1d(6)), (4, 5)),
        ((nn.Linear(5, 4), nn.BatchNorm1d(4)), (5,)),
    ],
    ids=repr,
)
def test_every_kind_of_pair_folds(pair, shape):
    graph = lifted(randomise(nn.Sequential(*pair)), shape)
    merged = merge(graph)
    assert norms(merged.graph) == []
    assert agreement(graph.module, merged.graph.module, [graph.samples(3)]).relative < 1e-5


def test_norm_over_tokens_stays():
    graph = lifted(randomise(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))), (4, 5))
    assert len(norms(merge(graph).graph)) == 1


def test_convolution_that_another_node_reads_keeps_its_norm():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.bn(y)

    graph = lifted(randomise(Fork()), (3, 4, 4))
    assert len(norms(merge(graph).graph)) == 1


def test_convolution_that_is_called_twice_keeps_its_norm():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.two(self.conv(self.one(self.conv(x))))

    graph = lifted(randomise(Twice()), (4, 4, 4))
    merged = merge(graph).graph
    assert len(norms(merged)) == 2
    assert agreement(graph.module, merged.module, [graph.samples(2)]).relative < 1e-6


def test_activation_that_a_removed_block_leaves_doubled_goes():
    graph = graph_of("resnet-a")
    s = next(s for s in analyse(graph).segments if s.chain == "main" and s.removable and s.sites)
    cut = apply(graph, [Step("remove", s.entry, s.exit)])
    merged = merge(cut).graph
    count = [sum(isinstance(m, nn.ReLU) for m in g.module.modules()) for g in (cut, merged)]
    assert count[1] == count[0] - 1
    assert agreement(cut.module, merged.module, [cut.samples(3)]).relative < 1e-5


def test_norm_of_a_cut_goes_too():
    graph = graph_of("resnet-a")
    s = next(s for s in analyse(graph).segments if s.chain == "main" and s.sites)
    cut = apply(graph, [Step("regress", s.entry, s.exit, s.kernels[0], s.stride)])
    assert norms(merge(cut).graph) == []


def test_agreement_sees_a_difference():
    graph = graph_of("vgg")
    other = graph.copied()
    with torch.no_grad():
        other.module.get_submodule("classifier.5").bias[0] += 100
    found = agreement(graph.module, other.module, [graph.samples(5)])
    assert found.top1 < 1
    assert found.absolute == pytest.approx(100, rel=1e-3)
    assert found.relative > 0.1


def test_agreement_of_nan_is_no_agreement():
    graph = graph_of("vgg")
    other = graph.copied()
    with torch.no_grad():
        other.module.get_submodule("classifier.5").bias[0] = float("nan")
    found = agreement(graph.module, other.module, [graph.samples(5), graph.samples(5, seed=1)])
    assert found.relative != found.relative


@pytest.mark.parametrize(("error", "passed"), [(1e-11, True), (1e-9, False), (float("nan"), False)])
def test_verification_passes_below_its_tolerance_only(error, passed):
    assert Verification("a + b", error, 1e-10).passed is passed

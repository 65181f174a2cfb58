import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis.sites import find_sites
from compressors.collapse import site_statistics
from compressors.scores.likelihood import likelihoods
from compressors.scores.masking import Mask, mask_channels
from compressors.shapes import propagate
from tests.compressors.networks import Shared, graph_of, lifted, randomise


def masked(graph, place=0):
    site = sites_of(graph)[place]
    return mask_channels(graph, likelihoods(graph, [site], parity=True).values())


def sites_of(graph):
    return find_sites(graph.module, propagate(graph.module, graph.inputs))


def normed():
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.25, -0.5]))
    return lifted(nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), norm, nn.ReLU()), (3, 6, 6))


def test_t8_a_removed_channel_becomes_a_constant_that_is_learnt():
    found = masked(normed())
    module, mask = found.graph.module, Mask(found.rows)
    (x,) = found.graph.samples(4)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    module.train()
    ((module(x) - 1) ** 2).mean().backward()
    norm = module.get_submodule("1")
    assert norm.weight.grad[1] == 0
    assert norm.bias.grad[1] == pytest.approx(-1.0)
    optimizer.step()
    mask.after_step(module)
    module.eval()
    assert not bool(module.get_submodule("0").weight[1].any())
    assert torch.equal(module(x)[:, 1], torch.full_like(module(x)[:, 1], 0.1))


def test_masked_weights_stay_zero_and_the_others_train():
    found = masked(normed())
    module, mask = found.graph.module, Mask(found.rows)
    (x,) = found.graph.samples(4)
    start = module.get_submodule("0").weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (F.mse_loss(module(x), torch.ones_like(module(x))) + mask.penalty(module)).backward()
        optimizer.step()
        mask.after_step(module)
    weight = module.get_submodule("0").weight
    assert not bool(weight[1].any())
    assert not torch.equal(weight[0], start[0])
    assert mask.metrics(module) == {"masked_channels": 1.0}
    assert mask.parameter_groups(module) == ()


class Pair(nn.Module):
    """Two linears with a ReLU between them."""

    def __init__(self, weight, bias) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(2, len(weight)), nn.Linear(len(weight), 2)
        with torch.no_grad():
            self.fc1.weight.copy_(torch.tensor(weight))
            self.fc1.bias.copy_(torch.tensor(bias))

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


def test_t9_a_removed_channel_is_its_operator_s_bias():
    graph = lifted(Pair([[1.0, 2], [-3, -4]], [0.5, -0.7]), (2,))
    x = torch.tensor([[1.0, 1], [5, 5]])
    statistics = site_statistics(graph, [(x,)])
    got = mask_channels(graph, likelihoods(graph, sites_of(graph), statistics, parity=True).values()).graph
    hidden = torch.tensor([[3.5, -0.7], [15.5, -0.7]])
    torch.testing.assert_close(got.module(x), graph.module.get_submodule("fc2")(hidden))


def test_behind_a_batch_norm_weights_go_where_beta_is_not_positive_and_the_norm_s_where_it_is_negative():
    graph = graph_of("vgg")
    site = sites_of(graph)[1]
    found = likelihoods(graph, [site], parity=True)[site.node]
    got = mask_channels(graph, [found]).graph
    nodes = {node.name: node for node in graph.module.graph.nodes}
    norm = nodes[site.node].all_input_nodes[0]
    wanted = graph.copied().module
    with torch.no_grad():
        wanted.get_submodule(norm.all_input_nodes[0].target).weight[found.mean <= 0] = 0
        for value in wanted.get_submodule(norm.target).parameters():
            value[found.mean < 0] = 0
    wanted.set_submodule(site.target, nn.Identity())
    (x,) = graph.samples(3)
    torch.testing.assert_close(got.module(x), wanted(x), atol=1e-5, rtol=1e-5)


def test_behind_a_sum_only_the_branch_is_removed():
    graph = graph_of("resnet-b")
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    found = masked(graph, 2)
    assert list(found.rows) == ["layers.0.conv2"]
    assert all(torch.equal(value, before[name]) for name, value in graph.module.state_dict().items())
    gone = found.rows["layers.0.conv2"]
    assert torch.equal(gone, graph.module.get_submodule("layers.0.bn2").bias <= 0)
    assert not bool(found.graph.module.get_submodule("layers.0.bn2").weight[gone].any())


def test_an_operator_that_is_called_twice_keeps_its_weights():
    graph = lifted(randomise(Shared()), (3, 8, 8))
    statistics = site_statistics(graph, [graph.samples(4)])
    found = mask_channels(graph, likelihoods(graph, sites_of(graph), statistics, parity=True).values())
    assert "body" not in found.rows

"""Batch-norm moments against those of the pooled data, in float64."""

import torch
from torch import nn

from compressors.tune import reestimate
from tests.compressors.networks import graph_of, lifted
from tests.compressors.samples import BatchedTensors, random_samples


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.two = nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        x = torch.relu(self.one(self.first(x))).mean((2, 3))
        return self.two(self.second(x))


def normalised(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """One batch, by its own moments, float64; x is (batch, channels, ...)."""
    flat = x.transpose(0, 1).flatten(1)
    shape = (1, -1, *[1] * (x.dim() - 2))
    scaled = (x - flat.mean(1).view(shape)) / (flat.var(1, correction=0).view(shape) + norm.eps).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def test_moments_are_those_of_all_batches_together() -> None:
    model = Normed()
    graph = lifted(model, (3, 6, 6))
    data = torch.randn(22, 3, 6, 6) * 3 + 1
    found = reestimate(graph, BatchedTensors(data), batches=3, size=8).module
    model = model.double()
    with torch.no_grad():
        first = [model.first(part) for part in data.double().split(8)]
        second = [model.second(torch.relu(normalised(x, model.one)).mean((2, 3))) for x in first]
    for name, inputs in (("one", first), ("two", second)):
        values = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], 1)
        norm = found.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), values.var(1), rtol=1e-5, atol=1e-6)
        assert not norm.training


def test_estimating_on_a_network_as_it_is_undoes_wrong_statistics() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1)
    spoilt = graph.copied()
    for part in spoilt.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.add_(5)
            part.running_var.mul_(9)
    one, two = (reestimate(start, data, batches=2, size=32).module.state_dict() for start in (graph, spoilt))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_everything_else_stays_and_the_input_is_not_changed() -> None:
    graph = graph_of("mobilenet").copied()
    before = {key: value.clone() for key, value in graph.module.state_dict().items()}
    found = reestimate(graph, random_samples(graph, 33, 1), batches=9, size=32)
    assert all(torch.equal(value, before[key]) for key, value in graph.module.state_dict().items())
    for key, value in found.module.state_dict().items():
        assert torch.equal(value, before[key]) == (not key.endswith(("running_mean", "running_var")))
    assert not any(part.training for part in found.module.modules())
    assert not any(part._forward_pre_hooks for part in found.module.modules())


def test_a_network_without_batch_norms_comes_back_as_a_copy() -> None:
    graph = graph_of("vit")
    found = reestimate(graph, random_samples(graph, 4, 1), batches=1)
    assert found.module is not graph.module
    assert all(torch.equal(value, found.module.state_dict()[key]) for key, value in graph.module.state_dict().items())

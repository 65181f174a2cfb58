import math

import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.modules import activation_kind
from tests.compressors.networks import lifted


class HandGelu(nn.Module):
    def __init__(self, factor=0.044715):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + self.factor * torch.pow(x, 3.0))))


class HandSilu(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x) * x


class Conv1D(nn.Module):
    """A linear as GPT-2 writes it: weight transposed, tokens flattened and restored."""

    def __init__(self, cin, cout):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(cin, cout)), nn.Parameter(torch.randn(cout))

    def forward(self, x):
        size = (*x.size()[:-1], self.bias.shape[0])
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


def kinds(graph):
    modules = dict(graph.module.named_modules())
    called = [modules[str(node.target)] for node in graph.module.graph.nodes if node.op == "call_module"]
    return [activation_kind(module) or type(module).__name__ for module in called]


@pytest.mark.parametrize(("model", "kind"), [(HandGelu(), "gelu"), (HandSilu(), "silu")])
def test_activation_written_out_is_one_module_and_the_same_function(model, kind):
    graph = lifted(model, (5, 6))
    assert kinds(graph) == [kind]
    x = 3 * torch.randn(2, 5, 6)
    assert torch.allclose(graph.module(x), model(x), atol=1e-6)


def test_other_constants_are_another_function():
    assert kinds(lifted(HandGelu(0.05), (5, 6))) == ["tanh"]


def test_product_of_two_inputs_is_left_alone():
    class Product(nn.Module):
        def forward(self, x, y):
            return x * y

    assert kinds(lifted(Product(), (4,), (4,))) == []


def test_gate_on_another_tensor_is_no_silu():
    class Gate(nn.Module):
        def forward(self, x):
            return torch.sigmoid(x) * (x + 1)

    assert kinds(lifted(Gate(), (4,))) == ["sigmoid"]


def test_linear_on_flattened_tokens_is_a_linear_on_tokens():
    model = nn.Sequential(Conv1D(6, 8), HandGelu(), Conv1D(8, 6))
    graph = lifted(model, (5, 6))
    assert [node.op for node in graph.module.graph.nodes if node.op == "call_function"] == []
    x = torch.randn(3, 5, 6)
    assert torch.allclose(graph.module(x), model(x), atol=1e-5)
    assert any(segment.kernels == ((),) for segment in analyse(graph).segments)


def test_reshape_that_regroups_tokens_stays():
    class Regroup(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x):
            return self.linear(x.reshape(-1, 6)).reshape(x.size(0), 3, 10)

    model = Regroup()
    graph = lifted(model, (5, 6))
    assert len([node for node in graph.module.graph.nodes if "reshape" in node.name]) == 2
    x = torch.randn(3, 5, 6)
    assert torch.allclose(graph.module(x), model(x), atol=1e-6)

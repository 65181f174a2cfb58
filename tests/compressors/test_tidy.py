import torch
from torch import fx, nn

from compressors.tidy import tidy


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        self.unused(x)
        torch.ops.aten.scaled_dot_product_attention.default(x, x, x)
        return self.used(x)


def test_what_nobody_reads_goes_even_if_torch_calls_it_random():
    module = tidy(fx.symbolic_trace(Net()))
    assert [node.name for node in module.graph.nodes] == ["x", "used", "output"]
    assert {name.split(".")[0] for name in module.state_dict()} == {"used"}


def test_inputs_stay():
    module = tidy(fx.symbolic_trace(lambda x, _y: x + 1))
    assert [node.name for node in module.graph.nodes if node.op == "placeholder"] == ["x", "_y"]

"""What lifting refuses, by name."""

# ruff: noqa: ARG005, E501 - tables of one-line models read best unbroken
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from compressors.errors import ModelError, UnsupportedModelError
from compressors.lift import lift
from compressors.sources.trace import trace
from tests.compressors.lift.test_breadth import Calls, program_of, rows


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x):
        self.count.view(2, 2).add_(1)
        return x + self.count


def boxes():
    return torch.cat([torch.arange(3.0)[:, None], torch.rand(3, 2), torch.rand(3, 2) + 2], 1)


REFUSED = {
    "lstm": (lambda m, x: m(x)[0], nn.LSTM(4, 6, batch_first=True), (rows(3, 5, 4),), "'lstm' in 'module'.*recurrent"),
    "gru": (lambda m, x: m(x)[0], nn.GRU(4, 6, batch_first=True), (rows(3, 5, 4),), "'gru'"),
    "embedding bag": (lambda m, i: m(i), nn.EmbeddingBag(10, 4), (torch.ones(3, 5, dtype=torch.int64),), "embedding_bag"),
    "nms": (lambda m, x: torchvision.ops.nms(x, x[:, 0], 0.5), None, (rows(3, 4),), "torchvision::nms"),
    "roi_align": (lambda m, x, b: torchvision.ops.roi_align(x, b, 2), None, (rows(3, 4, 9, 9), boxes()), "roi_align"),
    "selection": (lambda m, x: x[x[:, 0] > 0], None, (rows(3, 4),), "nonzero.*depends on the data"),
    "noise": (lambda m, x: x + torch.randn_like(x), None, (rows(3, 4),), "random numbers.*randn_like"),
    "attention dropout": (lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), None, (rows(3, 2, 5, 4),), "dropout in the attention"),
    "cond": (lambda m, x: torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (x,)), None, (rows(3, 4),), "cond"),
    "vmap": (lambda m, x: torch.vmap(m)(x), nn.Linear(4, 4), (rows(3, 4),), "no tensor operator"),
    "a weight returned": (lambda m, x: (m(x), m.weight), nn.Linear(4, 4), (rows(3, 4),), "output_1.*not the batch"),
    "an input without a batch": (lambda m, x, s: x * s, None, (rows(3, 4), torch.tensor(2.0)), "no batch dimension"),
    "a squeezed batch": (lambda m, x: x.mean(1).squeeze(), None, (rows(1, 4),), "output 0.*no batch dimension"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_keep_is_refused_by_name(name):
    function, module, inputs, match = REFUSED[name]
    free = name not in {"an input without a batch", "a squeezed batch"}
    with pytest.raises(ModelError, match=match):
        lift(program_of(Calls(function, module), inputs, free=free), "model")


def test_model_that_counts_its_calls_is_refused():
    with pytest.raises(ModelError, match=r"its own state \(count\)"):
        lift(program_of(Counter(), (rows(3, 4),)), "counter")


def test_autocast_inside_is_refused_by_name():
    def half(module, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return module(x).float()

    with pytest.raises(UnsupportedModelError, match="autocast"):
        lift(program_of(Calls(half, nn.Linear(4, 4)), (rows(3, 4),)), "model")


def test_branches_on_data_are_refused_when_tracing():
    from compressors.graph import TensorSpec

    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(UnsupportedModelError, match=r"cannot be traced.*data-dependent"):
        trace(Branching(), (TensorSpec("x", (4,)),), "branching")


def test_sample_shapes_by_name_must_name_inputs():
    with pytest.raises(ModelError, match="no input 'z'; it takes inputs_0"):
        lift(program_of(Calls(lambda m, x: x * 2), (rows(3, 4),)), "model", {"z": (4,)})


def test_shared_writes_that_cannot_be_undone_are_refused():
    def write(module, x):
        y = x * 2
        y[:, 0].add_(1)
        return y + 1

    program = program_of(Calls(write, None), (rows(3, 4),))
    last = [node for node in program.graph.nodes if node.op == "call_function"][-1]
    last.args = (last.args[0], "one")
    with pytest.raises(UnsupportedModelError, match="writes into tensors that others share"):
        lift(program, "model")

"""The gate itself: section 0 of the specification of LayerCollapse and Layer Folding."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.channel_line import ChannelLine, Line
from compressors.gates import Gate
from compressors.modules import _KINDS

ACTIVATIONS = [kind() for kind in _KINDS]


def line(channels=3, axis=1):
    return Line(torch.rand(channels).double(), torch.randn(channels).double(), axis)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 99))
def test_a_relu_s_gate_is_a_prelu(amount, seed):
    x = 4 * torch.randn(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    prelu = nn.PReLU(1, amount, dtype=torch.float64)
    got = Gate(nn.ReLU(), "act", amount, dtype=torch.float64)(x)
    torch.testing.assert_close(got, prelu(x), atol=2e-15, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda module: type(module).__name__)
def test_is_exact_at_both_ends(activation):
    x = 3 * torch.randn(2, 3, 5)
    for with_line in (None, line()):
        assert torch.equal(Gate(activation, "act", 0.0, with_line)(x), activation(x))
        wanted = x if with_line is None else ChannelLine(with_line)(x)
        assert torch.equal(Gate(activation, "act", 1.0, with_line)(x), wanted)


def test_an_identity_line_has_no_parameters():
    gate = Gate(nn.ReLU(), "act")
    assert [name for name, _ in gate.named_parameters()] == ["amount"]
    assert gate.as_line().is_identity


def test_gives_back_its_line():
    given_line = line()
    got = Gate(nn.Tanh(), "act", line=given_line, dtype=torch.float64).as_line()
    torch.testing.assert_close(got.slope, given_line.slope)
    torch.testing.assert_close(got.intercept, given_line.intercept)
    assert got.axis == given_line.axis


def test_gradients_reach_the_gate_and_its_line():
    gate = Gate(nn.GELU(), "act", 0.3, line(), torch.float64)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, (x,))
    gate(x).sum().backward()
    assert all(parameter.grad is not None for parameter in gate.parameters())


def test_does_not_raise_the_type_of_its_input():
    gate = Gate(nn.ReLU(), "act", 0.3)
    assert gate(torch.randn(4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_survives_copies_and_state_dicts():
    gate = Gate(nn.PReLU(3), "act", 0.3, line())
    copy = deepcopy(gate)
    x = torch.randn(2, 3, 4)
    assert torch.equal(copy(x), gate(x))
    assert copy.target == "act"
    fresh = Gate(nn.PReLU(3), "act", 0.0, line())
    fresh.load_state_dict(gate.state_dict())
    assert torch.equal(fresh(x), gate(x))

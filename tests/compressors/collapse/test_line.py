import pytest
import torch

from compressors.collapse import ChannelLine, Line, identity_line


def line(axis, channels=3):
    generator = torch.Generator().manual_seed(1)
    slope, intercept = torch.randn(2, channels, generator=generator, dtype=torch.float64)
    return Line(slope, intercept, axis)


@pytest.mark.parametrize(
    ("axis", "shape"),
    [(1, (2, 3)), (1, (2, 3, 5)), (1, (2, 3, 4, 5)), (2, (2, 4, 3, 5)), (-1, (2, 3)), (-1, (2, 5, 4, 3))],
)
def test_runs_along_its_axis(axis, shape):
    given = line(axis)
    x = torch.randn(shape, dtype=torch.float64)
    got = ChannelLine(given, torch.float64)(x)
    for channel in range(3):
        wanted = given.slope[channel] * x.select(axis, channel) + given.intercept[channel]
        assert torch.equal(got.select(axis, channel), wanted)


def test_one_value_serves_all_channels():
    module = ChannelLine(Line(torch.tensor([2.0]).double(), torch.tensor([1.0]).double(), 1))
    x = torch.randn(2, 5, 4, 4)
    assert torch.equal(module(x), 2 * x + 1)


def test_has_named_trainable_parameters_of_its_own():
    given = line(1)
    module = ChannelLine(given)
    assert list(module.state_dict()) == ["slope", "intercept"]
    module(torch.randn(2, 3, 4, 4)).sum().backward()
    with torch.no_grad():
        module.slope.zero_()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert torch.equal(given.slope, line(1).slope)


def test_only_exact_identities_count():
    assert identity_line().is_identity
    almost = Line(torch.ones(2).double(), torch.tensor([0.0, 1e-12]).double(), 1)
    assert not almost.is_identity

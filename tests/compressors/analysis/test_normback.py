"""Where a group norm may stand behind what a stretch merges to."""

import pytest
from torch import nn

from compressors.analysis.regions import merge_space
from tests.compressors.denoisers import denoiser
from tests.compressors.networks import lifted


def groups(module: nn.Module, size: int = 6) -> list[int]:
    """Of the longest region of a network."""
    regions = merge_space(lifted(module, (4, size, size))).regions
    return max(regions, key=lambda region: len(region.nodes)).norm_groups


def pair(norm: nn.Module, channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(4, channels, 3, padding=1))


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (pair(nn.GroupNorm(2, 4)), 2),
        (pair(nn.GroupNorm(4, 4), 6), 2),
        (pair(nn.GroupNorm(4, 4), 3), 1),
        (pair(nn.BatchNorm2d(4)), 0),
        (pair(nn.LayerNorm((6,))), 0),
    ],
    ids=["as inside", "what divides the channels", "one group", "batch norm", "layer norm"],
)
def test_groups_are_those_of_the_norm_inside(module: nn.Module, wanted: int) -> None:
    assert groups(module) == wanted


def test_the_last_norm_counts() -> None:
    assert groups(nn.Sequential(*pair(nn.GroupNorm(4, 4)), *pair(nn.GroupNorm(2, 4))[1:])) == 2


def test_no_norm_in_front_of_a_norm() -> None:
    assert groups(nn.Sequential(*pair(nn.GroupNorm(4, 4)), nn.GroupNorm(2, 4))) == 0


def test_no_norm_where_a_group_would_hold_one_value() -> None:
    assert groups(pair(nn.GroupNorm(4, 4)), size=1) == 0
    assert groups(pair(nn.GroupNorm(2, 4)), size=1) == 2


def test_no_norm_behind_a_shortcut() -> None:
    found = {region.exit: region for region in merge_space(denoiser()).regions if region.norms}
    assert found["second_conv2"].norm_groups == 2
    shortcuts = [region for region in found.values() if "second_shortcut" in region.operators]
    assert shortcuts
    assert {region.norm_groups for region in shortcuts} == {0}

"""Merges with a group norm behind them, where norms dissolved inside (`compressors.analysis.normback`).

1. By default both are offered, with and without: harm is judged with the norm's gain and shift fitted, the table counts
   the norm, and so the planner decides between them as between any two cuts.
2. As published (LayerMerge, 2024, for the DDPM U-Net) there always is one: 32 groups, or one a channel where 32 do not
   divide the channels, gain 1, shift 0. What the published search space lacks, a shortcut inside, is not offered.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.analysis.merges import MergeRegion
    from compressors.table import Cut

_GROUPS = 32


def with_norms(region: MergeRegion, cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """Returns a region's merges, and each with a norm behind it where there may be one (case 1)."""
    return (*cuts, *_behind(cuts, region.norm_groups)) if region.norm_groups else tuple(cuts)


def as_published(region: MergeRegion, cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """Returns a region's merges as the paper has them (case 2).

    Regions without a norm that looks at the sample keep their merges as they are.
    """
    if not region.norms:
        return tuple(cuts)
    channels, *positions = region.output_shape
    groups = _GROUPS if channels % _GROUPS == 0 else channels
    several = channels // groups * math.prod(positions) > 1
    return _behind(cuts, groups) if region.norm_groups and several else ()


def _behind(cuts: Sequence[Cut], groups: int) -> tuple[Cut, ...]:
    return tuple(replace(cut, step=replace(cut.step, norm=groups)) for cut in cuts)

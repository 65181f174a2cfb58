"""The group norm that may stand behind the one operator that a stretch becomes.

A group norm looks at the sample, so it folds into nothing: with the activation behind it, it dissolves when its
stretch merges. What it did for what follows, it can do behind the merged operator instead (LayerMerge, 2024: in the
blocks of the DDPM U-Net, the norm between the two convolutions goes, and a fresh one stands behind what they become).

1. Only where a group norm is inside, and what comes out are channels at several positions.
2. Not where a shortcut is added inside: that would be normalised with its branch, which no network was trained for.
3. It has as many groups as the last norm inside, as far as they divide the channels that come out.
4. Not where a group would hold one value: normalised, that is nothing.
5. Not where what comes out is normalised anyway.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import fx, nn

from compressors.analysis.kinds import Kind, module_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressors.shapes import Shapes


def groups_behind(kinds: Mapping[fx.Node, Kind], entry: fx.Node, shapes: Shapes) -> int:
    """Returns the groups of the norm that may stand behind a stretch, 0 where none may.

    Args:
        kinds: The nodes of the stretch in topological order, exit last, and what each is.
        entry: Its only input.
        shapes: Of the whole graph.
    """
    norms = [module for node in kinds if isinstance(module := _module(node), nn.GroupNorm)]
    *_, exit_ = kinds
    size = shapes.full[exit_.name]  # (n, channels, positions ...)
    normalised = any(isinstance(_module(user), nn.GroupNorm | nn.LayerNorm) for user in exit_.users)
    joined = any(_joins(node, kind, kinds, entry) for node, kind in kinds.items())
    if not norms or len(size) < 3 or normalised or joined:
        return 0
    groups = math.gcd(norms[-1].num_groups, size[1])
    return groups if size[1] // groups * math.prod(size[2:]) > 1 else 0


def _module(node: fx.Node) -> nn.Module | None:
    return module_of(node) if node.op == "call_module" else None


def _joins(node: fx.Node, kind: Kind, kinds: Mapping[fx.Node, Kind], entry: fx.Node) -> bool:
    """Case 2."""
    inside = [source for source in node.all_input_nodes if source is entry or source in kinds]
    return kind is Kind.ADD and len(inside) > 1

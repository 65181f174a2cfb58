"""Lines up the layers of two networks, so that what was cut stands beside what took its place."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.report.schema import LayerReport


@dataclass(frozen=True)
class Row:
    """One line: a layer before, a layer after, or both.

    Attributes:
        before: In the original, None where the layer is new.
        after: In the result, None where the layer was cut.
        changed: Whether the two are not the same layer.
    """

    before: LayerReport | None
    after: LayerReport | None
    changed: bool


@dataclass(frozen=True)
class Run:
    """Neighbouring lines that are all changed, or all unchanged."""

    changed: bool
    rows: tuple[Row, ...]


def align(before: Sequence[LayerReport], after: Sequence[LayerReport]) -> list[Run]:
    """Returns the layers of both networks in order, side by side.

    1. Layers with weights are matched by name, operator and shape: their names come from the model.
    2. What lies between them (activations, additions, whose names are only numbers) is matched by operator and shape,
       from both ends inwards: what was cut lies in between.
    """
    named = _share_names(before, after)
    weighted_before = [index for index, layer in enumerate(before) if layer.parameters]
    weighted_after = [index for index, layer in enumerate(after) if layer.parameters]
    pairs = _matches([_key(before[i], named) for i in weighted_before], [_key(after[i], named) for i in weighted_after])
    rows: list[Row] = []
    start_before, start_after = 0, 0
    for i, j in [*((weighted_before[i], weighted_after[j]) for i, j in pairs), (len(before), len(after))]:
        rows += _between(before[start_before:i], after[start_after:j], named)
        if i < len(before):
            rows.append(Row(before[i], after[j], changed=False))
        start_before, start_after = i + 1, j + 1
    return [Run(changed, tuple(group)) for changed, group in groupby(rows, key=lambda row: row.changed)]


def _share_names(before: Sequence[LayerReport], after: Sequence[LayerReport]) -> bool:
    """Tells whether layers with weights keep their names; numbered ones would be matched at random."""
    known = {layer.name for layer in before if layer.parameters}
    weighted = [layer.name for layer in after if layer.parameters]
    return 2 * sum(name in known for name in weighted) >= len(weighted)


def _key(layer: LayerReport, named: bool) -> Hashable:
    kind = (layer.op, layer.output_shape, layer.parameters, layer.macs)
    return (layer.name, *kind) if named and layer.parameters else kind


def _between(before: Sequence[LayerReport], after: Sequence[LayerReport], named: bool) -> list[Row]:
    old, new = ([_key(layer, named) for layer in layers] for layers in (before, after))
    shorter = min(len(old), len(new))
    head = next((k for k in range(shorter) if old[k] != new[k]), shorter)
    tail = next((k for k in range(shorter - head) if old[-1 - k] != new[-1 - k]), shorter - head)
    middle = zip_longest(before[head : len(before) - tail], after[head : len(after) - tail])
    ends = [(before[k], after[k]) for k in range(head)], [(before[k], after[k]) for k in range(-tail, 0)]
    return [
        *(Row(*pair, changed=False) for pair in ends[0]),
        *(Row(*pair, changed=True) for pair in middle),
        *(Row(*pair, changed=False) for pair in ends[1]),
    ]


def _matches(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[tuple[int, int]]:
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return [(block.a + offset, block.b + offset) for block in blocks for offset in range(block.size)]

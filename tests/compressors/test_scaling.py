"""The engine's work grows with the depth of a network, not with its square: lines of its code run, counted."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import compressors
from compressors.analysis import analyse
from compressors.analysis.regions import Reach, merge_space
from compressors.lift import lift
from compressors.surgery import merge
from tests.compressors.networks import Branches, Inverted, exported

ENGINE = str(Path(compressors.__file__).parent)


class Deep(nn.Module):
    """Blocks that write in place and share one activation module, with an inner chain each."""

    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2 * depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2 * depth))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.stem(x)
        for index in range(0, len(self.convs), 2):
            y = self.act(self.norms[index](self.convs[index](x)))
            y = self.norms[index + 1](self.convs[index + 1](y))
            x += y
            x = self.act(x)
        return x


class Stacked(nn.Module):
    """Inverted residuals and concatenated branches, one after the other."""

    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.blocks = nn.ModuleList(nn.ModuleList([Inverted(8, 8, gate=True), Branches()]) for _ in range(depth))
        self.back = nn.ModuleList(nn.Conv2d(5, 3, 1) for _ in range(depth))
        self.again = nn.ModuleList(nn.Conv2d(3, 8, 1) for _ in range(depth))

    def forward(self, x):
        x = self.stem(x)
        for (inverted, branches), back, again in zip(self.blocks, self.back, self.again, strict=True):
            x = back(branches(inverted(x)[:, :3]))
            x = again(x)
        return x


def lines_run(act: Callable[[], object]) -> int:
    """Returns how many lines of the engine's own code run; a comprehension counts one for every turn."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def near_regions(graph):
    """Looks for regions of few positions, so that the smallest network already has as many per block as the others."""
    return merge_space(graph, Reach(span=2))


@pytest.mark.parametrize("network", [Deep, Stacked])
def test_work_per_block_does_not_grow_with_depth(network):
    counts = []
    for depth in (2, 4, 8):
        program = exported(network(depth).eval(), (3, 8, 8))
        graph = lift(program, "net")
        near_regions(graph)  # what it remembers of repeated blocks must not look like less work in the deeper network
        steps = [partial(lift, program, "net"), *(partial(act, graph) for act in (analyse, near_regions, merge))]
        counts.append(torch.tensor([lines_run(step) for step in steps], dtype=torch.float64))
    first, second = (counts[1] - counts[0]) / 2, (counts[2] - counts[1]) / 4
    assert ((second / first) < 1.05).all(), f"lines a block for lift, analysis, regions and merge: {first}, then {second}"

"""Choices among cuts in nested chains."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.choose import Chooser
from compressors.plan import Step
from compressors.table import Alternative, Cut, Table
from tests.compressors.networks import lifted


class Around(nn.Module):
    """Two residual blocks, and a long skip connection around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)
        self.wide, self.narrow = (nn.ModuleList(nn.Conv2d(*size, 1) for _ in range(2)) for size in ((4, 8), (8, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = y = self.stem(x)
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            y = y + narrow(F.relu(wide(y)))
        return self.head(torch.cat([skip, y], 1))


def cut(chain: str, entry: str, site: str) -> Alternative:
    """A merge of the whole of a branch, which took 4 seconds and takes 1."""
    step = Step("merge", entry, chain, (1, 1), (1, 1), sites=(site,))
    return Alternative(Cut(chain, 0, 2, step, (4, 4, 4), (4, 4, 4)), 1.0, 3.0)


def test_cuts_are_found_where_the_chain_around_theirs_has_none() -> None:
    graph = lifted(Around(), (3, 4, 4))
    one, two = cut("narrow_0", "stem", "relu"), cut("narrow_1", "add", "relu_1")
    kept = {"main": (1.0, 11.0, 1.0), "add_1": (5.0, 5.0), "narrow_0": (2.0, 2.0), "narrow_1": (2.0, 2.0)}
    chooser = Chooser(graph, analyse(graph), Table(kept, (one, two)))
    assert chooser.fastest().alternatives == (one, two)
    choice = chooser.least_harm({one.step: 2.0, two.step: 1.0}, 11.0)
    assert choice is not None
    assert choice.steps == (two.step,)

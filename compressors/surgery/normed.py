"""A merged stretch with a group norm behind it, as one module: what a "merge" step with a norm puts in, by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from torch import nn

from compressors.surgery.unmerged import unmerged

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from compressors.channel_line import Line
    from compressors.graph import Graph, TensorSpec
    from compressors.plan import Step
    from compressors.surgery.stretch import AffineStretch


@final
class NormedStretch(nn.Module):
    """The train form of a merge, and the norm behind it."""

    def __init__(self, stretch: AffineStretch, groups: int, channels: int) -> None:
        """Takes over the stretch; the norm has gain 1 and shift 0."""
        super().__init__()
        self.stretch = stretch
        self.norm = nn.GroupNorm(groups, channels, dtype=stretch.specs[0].dtype)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Returns its inputs per sample: the stretch's own, then side inputs."""
        return self.stretch.specs

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns the norm's output."""
        return self.norm(self.stretch(*inputs))  # type: ignore[no-any-return]


def replacement(graph: Graph, step: Step, channels: int, lines: Mapping[str, Line]) -> AffineStretch | NormedStretch:
    """Returns what a "merge" step puts in, in train form; it shares nothing with the graph.

    Args:
        graph: The original.
        step: What to merge.
        channels: That come out.
        lines: What takes the place of the step's sites, by node; nothing where there is none.

    Raises:
        OptionError: See `unmerged`.
    """
    stretch = unmerged(graph, step, lines)
    return NormedStretch(stretch, step.norm, channels) if step.norm else stretch

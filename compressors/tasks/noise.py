"""Noisy images and the noise in them, made from clean ones.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,   abar_t = prod_{s <= t} (1 - beta_s),   eps ~ N(0, 1)

(Ho et al., 2020, equation 4). Candidates are compared on common random numbers: a sample's t and eps depend on the seed
and its index alone, so that what differs between two scores is the networks. In training they are drawn anew each time,
t in antithetic pairs (t and T - 1 - t), which lowers the variance of the loss over a batch, as the loss falls with t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import torch
from torch.utils.data import Dataset

from compressors.batches import count, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.graph import Edges
    from compressors.problem import Sample, Samples

_GOLDEN = (math.sqrt(5) - 1) / 2


@runtime_checkable
class DrawnSamples(Protocol):
    """Samples with a random part, which training draws anew each time, from its own source of randomness."""

    def drawn(
        self, indices: Sequence[int], generator: torch.Generator
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns stacked inputs and targets, as `BatchedSamples.batch` does, with new randomness."""
        ...


@dataclass(frozen=True)
class NoiseSchedule:
    """How much noise each step of a diffusion has: betas that rise linearly.

    Attributes:
        steps: T, >= 1.
        first: Beta of the first step, in (0, 1).
        last: Beta of the last step.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def kept(self) -> torch.Tensor:
        """Returns abar_t for every t, float64 (steps,): the share of the image's variance that is left."""
        return (1 - torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)).cumprod(0)


@final
class NoisySamples(Dataset["Sample"]):
    """Samples ((x_t, t), eps) of clean images.

    Args:
        clean: Samples whose first input is an image, scaled as the network was trained, usually to [-1, 1]. Their
            further inputs, such as what a conditional network attends to, are handed on; targets are not used.
        schedule: Of the network's training.
        seed: For what `[i]` and `batch` give.
    """

    def __init__(self, clean: Samples, schedule: NoiseSchedule, seed: int = 0) -> None:
        self._clean, self._schedule, self._seed = clean, schedule, seed
        self._kept = schedule.kept()

    def __len__(self) -> int:
        return count(self._clean)

    def __getitem__(self, index: int) -> Sample:
        inputs, noise = self.batch([index])
        return tuple(part[0] for part in inputs), noise[0]

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns the noisy samples at `indices`; the same index always has the same t and noise."""
        clean = fetch(self._clean, indices).inputs
        # Multiples of the golden ratio fill [0, 1) evenly, so that few samples already cover all t.
        shares = torch.tensor([math.modf((index + 1 + self._seed) * _GOLDEN)[0] for index in indices])
        noise = torch.stack([_noise(clean[0][at].shape, self._seed, index) for at, index in enumerate(indices)])
        return self._noisy(clean, (shares * self._schedule.steps).long(), noise)

    def drawn(
        self, indices: Sequence[int], generator: torch.Generator
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns the samples at `indices` with new noise; t in pairs that add up to T - 1, one alone if odd."""
        clean = fetch(self._clean, indices).inputs
        half = torch.randint(0, self._schedule.steps, (-(-len(indices) // 2),), generator=generator)
        times = torch.cat([half, self._schedule.steps - 1 - half])[: len(indices)]
        return self._noisy(clean, times, torch.randn(clean[0].shape, generator=generator))

    def _noisy(
        self, clean: tuple[torch.Tensor, ...], times: torch.Tensor, noise: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        kept = self._kept[times].view(-1, *[1] * (noise.dim() - 1))  # (n, 1, 1, 1)
        noisy = kept.sqrt().float() * clean[0] + (1 - kept).sqrt().float() * noise
        return (noisy, times, *clean[1:]), noise


def is_denoiser(graph: Edges) -> bool:
    """Returns whether the network takes a noisy `sample` and the `timestep` of each."""
    return {"sample", "timestep"} <= {spec.name for spec in graph.inputs}


def noised(graph: Edges, samples: Samples, schedule: NoiseSchedule | None = None, seed: int = 0) -> Samples:
    """Returns noisy samples where a denoiser's samples lack the timestep, as clean images do; others as they are."""
    if not is_denoiser(graph) or count(samples) == 0 or len(fetch(samples, [0]).inputs) >= len(graph.inputs):
        return samples
    return NoisySamples(samples, schedule or NoiseSchedule(), seed)


def _noise(shape: torch.Size, seed: int, index: int) -> torch.Tensor:
    # Neighbouring seeds of torch's generator give unrelated numbers.
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + index))

"""What cuts do to a network, learned from sets of them that were judged together.

The log of each cut's harm is taken to be normal, around what is known of the cut alone. What a set does together,

    log harm = scale + 2 log(sum over its cuts of sqrt(harm)) + noise,

is linear in those logs close to any point, so what is believed after some sets is normal too: found by Gauss and
Newton's method, and drawn from by Matheron's rule (Wilson et al. 2021, "Pathwise conditioning of Gaussian processes",
eq. 6), which solves for as many unknowns as there are sets and not as there are cuts. Planning by one draw after the
other, and learning from each plan, is Thompson's sampling: what may be good is tried as often as it may be.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressors.plan import Step

_DOUBT: Final = 1.2
"""Standard deviation of the log of a cut's harm, before it was seen beside others."""
_SCALE_DOUBT: Final = 5.0
"""Of the scale: harms of cuts alone may be in other units."""
_NOISE: Final = 0.3
"""Of the log of what a set does together: what no harms of single cuts could say."""
_LEAST: Final = 1e-6
"""Harms below are taken for this; logs of zeros are not finite."""
_MOST: Final = 1e6
"""What sets do above this, or without a number, is taken for this."""
_ROUNDS: Final = 8


@final
class Beliefs:
    """Harms of cuts, and how sure they are.

    Args:
        harms: Of each cut alone, >= 0, in any unit; an infinite one stays so, whatever is learned.
        seed: Of the draws.
    """

    def __init__(self, harms: Mapping[Step, float], seed: int = 0) -> None:
        self._alone = dict(harms)
        self._steps = [step for step, harm in harms.items() if math.isfinite(harm)]
        self._place = {step: at for at, step in enumerate(self._steps)}
        logs = torch.tensor([max(_LEAST, harms[step]) for step in self._steps], dtype=torch.float64).log()
        # The scale comes last.
        self._prior = torch.cat([logs, logs.new_zeros(1)])
        self._variance = torch.full_like(self._prior, _DOUBT**2)
        self._variance[-1] = _SCALE_DOUBT**2
        self._sets: list[list[int]] = []
        self._seen: list[float] = []
        self._found: tuple[torch.Tensor, torch.Tensor] | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def learn(self, steps: Sequence[Step], harm: float) -> None:
        """Takes in what some cuts do together.

        Args:
            steps: One or more that harms are known of; of a set with one whose harm is infinite nothing is learned.
            harm: >= 0, in the unit of all that is learned.
        """
        if all(step in self._place for step in steps):
            self._sets.append([self._place[step] for step in steps])
            self._seen.append(min(_MOST, max(_LEAST, harm)) if math.isfinite(harm) else _MOST)
            self._found = None

    def expected(self) -> dict[Step, float]:
        """Returns the likeliest harm of each cut, in the unit that they came in."""
        return self._harms(self._mode()[0])

    def draw(self) -> dict[Step, float]:
        """Returns harms as they may be, more doubtful ones further from what is likely."""
        mode, slopes = self._mode()
        offset = self._normal(len(self._prior)) * self._variance.sqrt()
        if not self._sets:
            return self._harms(mode + offset)
        told = slopes @ offset + _NOISE * self._normal(len(self._sets))
        return self._harms(mode + offset - self._correction(slopes, told))

    def _mode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the likeliest logs, and the slopes there of what sets do by each log, shape (sets, logs)."""
        if self._found is not None:
            return self._found
        at, seen = self._prior, torch.tensor(self._seen, dtype=torch.float64).log()
        slopes = seen.new_zeros(len(self._sets), len(self._prior))
        for _ in range(_ROUNDS if self._sets else 0):
            values, slopes = self._together(at)
            at = self._prior + self._correction(slopes, seen - values + slopes @ (at - self._prior))
        self._found = at, slopes
        return self._found

    def _together(self, logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the log of what each set does, if single harms are these, and its slopes."""
        slopes = logs.new_zeros(len(self._sets), len(logs))
        values = logs.new_zeros(len(self._sets))
        for row, places in enumerate(self._sets):
            halves = logs[places] / 2
            values[row] = logs[-1] + 2 * halves.logsumexp(0)
            slopes[row, places] = halves.softmax(0)
        slopes[:, -1] = 1
        return values, slopes

    def _correction(self, slopes: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """Returns by how much logs move when what sets do turns out to differ so much from what was expected."""
        gain = self._variance[:, None] * slopes.T
        noise = _NOISE**2 * torch.eye(len(told), dtype=torch.float64)
        solved: torch.Tensor = torch.linalg.solve(slopes @ gain + noise, told)
        return gain @ solved

    def _normal(self, size: int) -> torch.Tensor:
        return torch.randn(size, dtype=torch.float64, generator=self._generator)

    def _harms(self, logs: torch.Tensor) -> dict[Step, float]:
        return self._alone | dict(zip(self._steps, logs[:-1].exp().tolist(), strict=True))

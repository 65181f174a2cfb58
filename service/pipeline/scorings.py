"""What a job finds out about how good files are on its validation samples, each file once, and how long that took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from pydantic import TypeAdapter

from compressors.memory import key_of
from service.judging.scoring import FileScore, Scorer
from service.resuming.remembered import recalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressors.graph import Edges
    from compressors.memory import Memory
    from compressors.problem import Samples
    from deploy.artifact import Artifact
    from deploy.bench import Bench
    from service.judging.quality import Goal

FINISHING_SECONDS: Final = 40.0
"""Kept back from the time limit for what is left when a network was chosen, its scoring apart: to export it, time it
beside the original and report. An idle core takes 20 s for a ResNet-20."""


@dataclass(frozen=True)
class Scored:
    """What was found out about one file.

    Attributes:
        score: How good it is.
        seconds: How long it took to find out.
    """

    score: FileScore
    seconds: float


_SCORED: TypeAdapter[Scored] = TypeAdapter(Scored)


@final
@dataclass(frozen=True)
class Scorings:
    """Scores a job's files on its validation samples.

    Attributes:
        graph: The original's edges: what inputs and outputs are.
        original: Its file.
        samples: What to score on; None for nothing.
        goal: What counts.
        memory: What was found out before.
        bench: What runs the files.
        clock: Returns the job's seconds so far; waiting for a device does not count.
    """

    graph: Edges
    original: Artifact
    samples: Samples | None
    goal: Goal
    memory: Memory
    bench: Bench
    clock: Callable[[], float]

    def of(self, artifact: Artifact) -> Scored:
        """Returns how good a file is.

        Raises:
            DeployError: It cannot be run.
        """
        key = key_of("score", artifact.sha256, self.goal.task.name)
        return recalled(self.memory, key, _SCORED, lambda: self._found(artifact))

    def wind_up_seconds(self) -> float:
        """Returns how long it may take to export, time, score and report a network, going by the original's scoring.

        Where a file is scored by what the original's puts out, and not by targets, that is computed once more with it.
        """
        original = self.of(self.original)
        return FINISHING_SECONDS + (2.0 if original.score.accuracy is None else 1.0) * original.seconds

    def _found(self, artifact: Artifact) -> Scored:
        begun = self.clock()
        scorer = Scorer(self.graph, self.original.path, self.samples, self.goal, self.bench)
        score = scorer.score(artifact.path)
        return Scored(score, self.clock() - begun)

"""What is asked of a device far away, and how it travels: JSON and files.

Six kinds of work, one for each question of `deploy.bench.base.Bench`:

* `describe`: the machine and its runtime.
* `time`: model files, interleaved in a fresh process.
* `profile`: what each operator of a model file takes.
* `edges`: the model of each model's edges.
* `engine`: what the runtime made of a model file for its device; a program, which nobody else may load.
* `run`: a model file on batches.

Model files of one piece of work may have the same name, and one with large weights has a second file beside it; so a
request names, for each model, the places of its files among those of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from deploy.artifact import DATA_SUFFIX
from deploy.bench.base import Feed
from deploy.errors import TOLD, DeployError, MeasureError, ModelFileError

KINDS: Final = ("describe", "time", "profile", "edges", "engine", "run")

FAILURES: Final[Mapping[str, type[DeployError]]] = TOLD
"""What may come back in place of an answer."""


@dataclass(frozen=True)
class Question:
    """One piece of work.

    Attributes:
        kind: One of `KINDS`.
        request: Plain data; its fields depend on the kind.
        files: What the work needs.
        patience: Seconds after which who asks goes on without an answer; None for as long as it takes.
    """

    kind: str
    request: Mapping[str, Any]
    files: tuple[Path, ...] = ()
    patience: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes:
        result: Plain data; its fields depend on the kind.
        files: What was made.
    """

    result: Mapping[str, Any]
    files: tuple[Path, ...] = ()


Ask = Callable[[Question], Answer]
"""Has a piece of work done; raises a `DeployError` where it cannot be."""


def pack_models(models: Sequence[Path]) -> tuple[list[list[int]], tuple[Path, ...]]:
    """Returns for each model the places of its files, and all files."""
    places: list[list[int]] = []
    files: list[Path] = []
    for model in models:
        beside = model.with_name(model.name + DATA_SUFFIX)
        own = [model, beside] if beside.exists() else [model]
        places.append(list(range(len(files), len(files) + len(own))))
        files += own
    return places, tuple(files)


def unpack_models(places: Sequence[Sequence[int]], files: Sequence[Path], folder: Path) -> list[Path]:
    """Returns the models, each with its files in a folder of its own under `folder`.

    Raises:
        ModelFileError: The places are not places of files.
    """
    models = []
    for number, own in enumerate(places):
        if not own or not all(isinstance(place, int) and 0 <= place < len(files) for place in own):
            msg = f"a request for {len(files)} files names the places {list(own)}"
            raise ModelFileError(msg)
        home = folder / str(number)
        home.mkdir(parents=True)
        for place in own:
            (home / files[place].name).symlink_to(files[place].resolve())
        models.append(home / files[own[0]].name)
    return models


def write_batches(batches: Iterable[Feed], stream: IO[bytes]) -> int:
    """Writes batches of arrays one after the other, in numpy's own format; returns how many."""
    count = 0
    for count, batch in enumerate(batches, start=1):  # noqa: B007
        for values in batch:
            np.save(stream, np.ascontiguousarray(values), allow_pickle=False)
    return count


def read_batches(stream: IO[bytes], batches: int, arrays: int) -> Iterator[Feed]:
    """Yields batches of so many arrays each.

    Raises:
        MeasureError: The stream holds something else.
    """
    for _ in range(batches):
        try:
            yield tuple(np.load(stream, allow_pickle=False) for _ in range(arrays))
        except (ValueError, EOFError, OSError) as exc:
            msg = "the arrays that came with a piece of device work cannot be read"
            raise MeasureError(msg) from exc

"""How good ONNX files are on samples: the figure that a job's report has, computed in the same way.

Which figure it is, the task says: the one that is asked for, else that of the report beside the first file, else the
one that the file's inputs and outputs and the labels tell, as in a job.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compressors.batches import count, fetch
from compressors.errors import OptionError
from compressors.tasks import check_task, choose_task, is_denoiser, noised
from deploy.bench import LocalBench
from service.cli.errors import InputError
from service.cli.fileedges import FileEdges, Reported, read_edges, read_reported
from service.data import Columns, DataError, TokenRecipe, load_tokenizer, open_split, resolve, takes_tokens
from service.data.arrays import holds_array
from service.data.checks import check_against
from service.judging.quality import AGREEMENT, RELATIVE_ERROR, Goal, classes
from service.judging.scoring import Scorer
from service.spec import Preprocessing

if TYPE_CHECKING:
    from compressors.problem import Samples
    from compressors.tasks import Task
    from service.data.opening import Recipe
    from service.judging.scoring import FileScore

_TOLD_BY = 256
"""Samples whose targets tell the task."""


@dataclass(frozen=True)
class Question:
    """What to score, and on what.

    Attributes:
        files: ONNX files with the same inputs and outputs; where there are two, the second is the original.
        split: A Parquet file, an `.npz` file or a folder of class folders.
        preprocessing: How samples become inputs; None for what the report beside the first file says.
        runtime: What runs the files.
        columns: Which columns hold the samples; None for the usual ones.
        tokenizer: Folder with the tokenizer of a model that takes texts.
        device: What runs the files, `cpu` or `cuda:N`.
        task: What the outputs mean; None for what the report says, or model and labels tell.
    """

    files: tuple[Path, ...]
    split: Path
    preprocessing: Preprocessing | None
    runtime: str
    columns: Columns | None = None
    tokenizer: Path | None = None
    device: str = "cpu"
    task: str | None = None


def score(question: Question) -> tuple[FileScore, ...]:
    """Returns how good each file is.

    Raises:
        InputError: The samples are missing or do not fit the model, or there is nothing to tell a figure by.
        DeployError: A file cannot be run.
    """
    if not question.split.exists():
        raise InputError(
            f"--data {question.split} does not exist; give a file or a folder of samples, as --data of `shoal optimize`"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="shoal-") as work:
            return _scores(question, Path(work))
    except (DataError, OptionError) as exc:
        raise InputError(str(exc)) from exc


def _scores(question: Question, work: Path) -> tuple[FileScore, ...]:
    edges, reported = read_edges(question.files[0], question.runtime, question.device), read_reported(question.files[0])
    task = question.task or reported.task
    samples = _samples(question, edges, reported, task, work)
    targets = fetch(samples, range(min(_TOLD_BY, count(samples)))).labels
    goal = Goal(choose_task(edges, targets) if task is None else check_task(edges, targets, task))
    bench = LocalBench(question.runtime, question.device)
    scorer = Scorer(edges, question.files[-1], samples, goal, bench)
    found = tuple(scorer.score(path) for path in question.files)
    if len(found) == 1:
        _require_figure(found[0], goal.task, question.split)
    return found


def _require_figure(found: FileScore, task: Task, split: Path) -> None:
    """Refuses figures that compare with the original where there is no original."""
    if found.quality is not None and found.quality.figure in (AGREEMENT, RELATIVE_ERROR):
        why = "the task compares with the original alone" if task.name == "none" else "samples without labels"
        raise InputError(
            f"--data {split}: {why}; give the original with --baseline, and the {found.quality.figure.name} is computed"
        )


def _samples(question: Question, edges: FileEdges, reported: Reported, task: str | None, work: Path) -> Samples:
    """Returns the samples as the model's inputs, with targets as the task has them."""
    recipe = _recipe(question, edges, reported)
    split = open_split(question.split, "FORMAT_UNSPECIFIED", recipe, work, columns=question.columns)
    outputs = classes(edges, task)
    if outputs is not None:
        check_against(split, outputs)
        split = split.widened(outputs)
    return noised(edges, split, seed=reported.seed)


def _recipe(question: Question, edges: FileEdges, reported: Reported) -> Recipe:
    asked = question.preprocessing or reported.preprocessing
    config = {} if question.preprocessing is not None else reported.config
    inputs = edges.inputs
    if is_denoiser(edges) and not holds_array(question.split, "timestep"):
        inputs = tuple(spec for spec in inputs if spec.name != "timestep")
        if len(inputs) > 1:
            return TokenRecipe(inputs)
        middle = (0.5,) * inputs[0].shape[0]  # a denoiser's images are in [-1, 1]
        return resolve(asked, {"mean": middle, "std": middle, **config}, inputs[0].shape)
    if len(inputs) == 1 and inputs[0].dtype.is_floating_point:
        return resolve(asked, config, inputs[0].shape)
    if question.tokenizer is None or not takes_tokens(inputs):
        return TokenRecipe(inputs)
    return TokenRecipe(inputs, load_tokenizer(question.tokenizer, inputs[0].shape[0]))

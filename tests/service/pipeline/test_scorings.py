"""What the scoring of files costs a job, and that each file is scored once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressors.tasks import TASKS
from deploy.bench import LocalBench
from service.data import open_split, resolve
from service.judging.quality import Goal
from service.pipeline.scorings import FINISHING_SECONDS, Scorings
from service.pipeline.shipping import ship
from service.spec import Preprocessing
from tests.compressors.networks import graph_of
from tests.compressors.test_memory import Shelf

NETWORK = graph_of("vgg")


def scorings(folder: Path, memory: Shelf, *, labelled: bool = True) -> Scorings:
    """A job's scorings of images in a file, with a class each or without."""
    rng = np.random.default_rng(0)
    shape = NETWORK.inputs[0].shape
    arrays = {"x": rng.integers(0, 255, (256, *shape[1:], shape[0]), dtype=np.uint8)}
    if labelled:
        arrays["y"] = np.arange(256) % NETWORK.outputs[0].shape[0]
    np.savez(folder / "data.npz", **arrays)
    recipe = resolve(Preprocessing(), {}, shape)
    data = open_split(folder / "data.npz", "FORMAT_UNSPECIFIED", recipe, folder)
    file = ship(NETWORK, folder / "original.onnx").artifact
    return Scorings(NETWORK, file, data, Goal(TASKS["classification"]), memory, LocalBench(), time.monotonic)


@pytest.mark.parametrize(("labelled", "times"), [(True, 1), (False, 2)])
def test_the_original_s_scoring_is_kept_back_for_the_result_s(tmp_path: Path, labelled: bool, times: int) -> None:
    asked = scorings(tmp_path, Shelf(), labelled=labelled)
    begun = time.monotonic()
    kept_back = asked.wind_up_seconds()
    most = time.monotonic() - begun
    scored = asked.of(asked.original)
    assert (scored.score.accuracy is not None) == labelled
    assert 0 < scored.seconds <= most
    assert kept_back == FINISHING_SECONDS + times * scored.seconds


def test_a_file_is_scored_once_also_by_a_job_that_goes_on(tmp_path: Path) -> None:
    memory = Shelf()
    first = scorings(tmp_path, memory)
    found = first.of(first.original)
    first.original.path.unlink()
    assert (
        Scorings(NETWORK, first.original, first.samples, first.goal, memory, LocalBench(), time.monotonic).of(
            first.original
        )
        == found
    )


def test_without_samples_nothing_is_found(tmp_path: Path) -> None:
    asked = scorings(tmp_path, Shelf())
    nothing = Scorings(NETWORK, asked.original, None, asked.goal, Shelf(), LocalBench(), time.monotonic)
    assert nothing.of(nothing.original).score.quality is None


def test_waiting_for_a_device_does_not_count(tmp_path: Path) -> None:
    asked = replace(scorings(tmp_path, Shelf()), clock=lambda: 5.0)
    assert asked.wind_up_seconds() == FINISHING_SECONDS

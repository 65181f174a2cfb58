"""A training that is killed goes on, and ends with the weights of one that was not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressors.tune import TuneConfig, Tuned, checkpoint, tune
from tests.compressors.networks import graph_of
from tests.compressors.samples import Recorder, random_samples
from tests.compressors.tune.test_run import damaged

TRAINING = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.compressors.tune.test_checkpoint import train

def until(fraction, message, metrics=None):
    if metrics and metrics.get("step") == float(sys.argv[2]) and "holdout_agreement" in metrics:
        os.kill(os.getpid(), signal.SIGKILL)

train(Path(sys.argv[1]), until)
"""


def recipe(folder: Path | None, **changes) -> TuneConfig:
    settings = {
        "epochs": 5.0,
        "batch": 16,
        "learning_rates": (1e3, 0.05),
        "trial_steps": 3,
        "ema": 0.9,
        "erasing": 0.3,
        "mixup": 0.3,
        "evaluations": 5,
        "device": "cpu",
        "precision": "float32",
        "checkpoint": folder,
    }
    return TuneConfig(**(settings | changes))


def train(folder: Path | None, progress, **changes) -> Tuned:
    graph = graph_of("mobilenet")
    data, held = (random_samples(graph, count, seed, labelled=True) for count, seed in ((64, 1), (32, 2)))
    return tune(graph, damaged(graph), data, held, recipe(folder, **changes), progress)


def same(one: Tuned, two: Tuned) -> bool:
    mine, theirs = one.graph.module.state_dict(), two.graph.module.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in mine.items())


@pytest.fixture(scope="module")
def whole() -> Tuned:
    return train(None, Recorder())


def test_killed_training_ends_with_the_same_weights(tmp_path: Path, whole: Tuned) -> None:
    killed = subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path), "14"], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    seen = Recorder()
    resumed = train(tmp_path, seen)
    steps = [metrics["step"] for _, _, metrics in seen.calls if metrics and "step" in metrics]
    assert steps == [13, 14, 15, 16, 17, 18, 19, 20]
    assert same(resumed, whole)
    assert resumed.after == whole.after
    assert resumed.trials == whole.trials
    told = [(entry.step, entry.loss, entry.score) for entry in resumed.history]
    assert told == [(entry.step, entry.loss, entry.score) for entry in whole.history]


def test_interrupted_anywhere_it_comes_to_the_same_end(tmp_path: Path, whole: Tuned) -> None:
    for number, stop in enumerate(("trying learning rate 0.05", "step 9")):

        def interrupt(fraction, message, metrics=None, stop=stop):
            if stop in message:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / str(number), interrupt)
        assert same(train(tmp_path / str(number), Recorder()), whole)


def test_finished_training_is_not_done_again(tmp_path: Path, whole: Tuned) -> None:
    train(tmp_path, Recorder())
    seen = Recorder()
    again = train(tmp_path, seen)
    assert seen.calls == []
    assert same(again, whole)


def test_training_of_something_else_starts_over(tmp_path: Path) -> None:
    train(tmp_path, Recorder(), epochs=1.0)
    seen = Recorder()
    train(tmp_path, seen, epochs=1.0, seed=1)
    assert [metrics["step"] for _, _, metrics in seen.calls if metrics and "step" in metrics] == [1, 2, 3, 4]


def test_unreadable_state_starts_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"fingerprint": "a", "weights": torch.ones(3)})
    assert checkpoint.load(tmp_path, "a") is not None
    assert checkpoint.load(tmp_path, "b") is None
    assert checkpoint.load(tmp_path / "elsewhere", "a") is None
    (tmp_path / checkpoint.FILE).write_bytes(b"PK\x03\x04 half a file")
    assert checkpoint.load(tmp_path, "a") is None


def test_state_is_replaced_whole(tmp_path: Path) -> None:
    for value in range(3):
        checkpoint.save(tmp_path, {"fingerprint": "a", "value": value})
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]
    assert (checkpoint.load(tmp_path, "a") or {})["value"] == 2

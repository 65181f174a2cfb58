"""`shoal batch` over files, against a real server whose workers finish at once, take their time, or fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.batch.summary import Summary
from service.client import Client
from tests.service.cli.command import Ask, Done, environment
from tests.service.server_process import ServerProcess, Told
from tests.service.workers.reports import FILES


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with three files that pass for models; their bytes are this test's own."""
    for name in ("a.pt2", "b.pt2"):
        (tmp_path / "models" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "models" / name).write_bytes(f"{tmp_path} {name}".encode())
    return tmp_path / "models"


def _summary(out: Path) -> Summary:
    return Summary.model_validate_json((out / "summary.json").read_text())


def _jobs(server: ServerProcess, *labels: str) -> list[str]:
    """Names of the jobs for models of these labels, on a server that other tests use too."""
    with Client(server.address) as client:
        return [job.name for job in client.list() if not labels or job.display_name in labels]


def _manifest(folder: Path, *models: dict[str, Any], **defaults: Any) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps({"defaults": {"budget": "0.5x", **defaults}, "models": models}))
    return path


def test_every_model_gets_a_folder_and_all_are_in_one_summary(ask: Ask, models: Path, tmp_path: Path) -> None:
    done = ask("batch", models, "--budget", "0.5x", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 met their budget; 2 worked on now." in done.stdout
    summary = _summary(tmp_path / "out")
    assert summary.totals.budget_met == 2
    for one in summary.models:
        folder = tmp_path / "out" / one.outcome.folder
        assert {path.name for path in folder.iterdir()} == {*FILES, "report.json", "report.html", "manifest.json"}
        assert f"{one.outcome.folder}/report.html" in (tmp_path / "out/summary.html").read_text()


def test_a_second_run_does_nothing(ask: Ask, server: ServerProcess, models: Path, tmp_path: Path) -> None:
    flags = ("batch", models, "--budget", "0.5x", "--out", tmp_path / "out")
    assert ask(*flags).returncode == 0
    before = len(_jobs(server))
    ledger = (tmp_path / "out/batch.jsonl").read_bytes()
    done = ask(*flags)
    assert "2 of 2 met their budget; 0 worked on now." in done.stdout
    assert (len(_jobs(server)), (tmp_path / "out/batch.jsonl").read_bytes()) == (before, ledger)


def test_another_folder_finds_the_same_jobs_on_the_server(
    ask: Ask, server: ServerProcess, models: Path, tmp_path: Path
) -> None:
    assert ask("batch", models, "--budget", "0.5x", "--out", tmp_path / "out").returncode == 0
    before = len(_jobs(server))
    assert ask("batch", models, "--budget", "0.5x", "--out", tmp_path / "other").returncode == 0
    assert len(_jobs(server)) == before
    assert ask("batch", models, "--budget", "0.4x", "--out", tmp_path / "other").returncode == 0
    assert len(_jobs(server)) == before + 2


def test_the_same_bytes_are_optimised_once(ask: Ask, server: ServerProcess, models: Path, tmp_path: Path) -> None:
    (models / "copy.pt2").write_bytes((models / "a.pt2").read_bytes())
    before = len(_jobs(server))
    assert ask("batch", models, "--budget", "0.5x", "--jobs", "4", "--out", tmp_path / "out").returncode == 0
    assert len(_jobs(server)) == before + 2
    outcomes = {one.outcome.name: one.outcome for one in _summary(tmp_path / "out").models}
    assert outcomes["copy.pt2"].job == outcomes["a.pt2"].job


def test_a_result_that_was_lost_is_fetched_again(ask: Ask, server: ServerProcess, models: Path, tmp_path: Path) -> None:
    flags = ("batch", models / "a.pt2", "--budget", "0.5x", "--out", tmp_path / "out")
    assert ask(*flags).returncode == 0
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    (folder / "model.onnx").write_bytes(b"damaged")
    before = len(_jobs(server))
    assert ask(*flags).returncode == 0
    assert (folder / "model.onnx").read_bytes() == FILES["model.onnx"]
    assert len(_jobs(server)) == before


def test_one_models_failure_stops_no_other_and_the_status_tells(ask: Ask, models: Path, tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        {"model": "models/a.pt2", "seed": int(Told.CALLER_ERROR)},
        {"model": "models/b.pt2"},
        {"model": "models/gone.pt2"},
        {"name": "c", "model": "models/b.pt2", "data": "nowhere"},
    )
    done = ask("batch", path, "--out", tmp_path / "out")
    assert done.returncode == 2
    verdicts = {one.outcome.name: one.outcome.verdict for one in _summary(tmp_path / "out").models}
    assert verdicts == {"a.pt2": "FAILED", "b.pt2": "BUDGET_MET", "gone.pt2": "REFUSED", "c": "REFUSED"}
    assert "gone.pt2 cannot be read: No such file or directory" in done.stdout
    assert "nowhere does not exist" in done.stdout


def test_a_model_that_fails_by_its_own_fault_is_not_tried_again_unless_asked(
    ask: Ask, server: ServerProcess, models: Path, tmp_path: Path
) -> None:
    path = _manifest(tmp_path, {"model": "models/a.pt2", "seed": int(Told.CALLER_ERROR)})
    counts = []
    for flags in ((), (), ("--retry",)):
        assert ask("batch", path, "--out", tmp_path / "out", *flags).returncode == 2
        counts.append(len(_jobs(server)))
    assert (counts[1] - counts[0], counts[2] - counts[1]) == (0, 1)


def test_a_failure_of_the_machine_is_tried_again_in_the_next_run(
    ask: Ask, server: ServerProcess, models: Path, tmp_path: Path
) -> None:
    path = _manifest(tmp_path, {"model": "models/a.pt2", "seed": int(Told.MACHINE_ERROR)})
    counts = []
    for out in ("out", "out", "another"):
        assert ask("batch", path, "--out", tmp_path / out).returncode == 1
        counts.append(len(_jobs(server)))
    assert (counts[1] - counts[0], counts[2] - counts[1]) == (1, 1)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    ask: Ask, server: ServerProcess, models: Path, tmp_path: Path
) -> None:
    assert ask("batch", models / "a.pt2", "--budget", "0.5x", "--out", tmp_path / "out").returncode == 0
    (models / "d.pth").write_bytes(b"x")
    before = len(_jobs(server))
    done = ask("batch", models, "--budget", "0.5x", "--out", tmp_path / "out", "--dry-run", "--format", "json")
    planned = {one["label"]: one["what"] for one in map(json.loads, done.stdout.splitlines())}
    assert planned == {"a.pt2": "done", "b.pt2": "new", "d.pth": "refused"}
    assert (done.returncode, len(_jobs(server))) == (2, before)
    text = ask("batch", models, "--budget", "0.5x", "--out", tmp_path / "out", "--dry-run").stdout
    assert text.splitlines()[-1] == "1 new, 1 done, 1 refused. Nothing was done."


def test_json_is_one_object_a_line(ask: Ask, models: Path, tmp_path: Path) -> None:
    done = ask("batch", models, "--budget", "0.5x", "--out", tmp_path / "out", "--format", "json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0] == {"event": "begin", "models": ["a.pt2", "b.pt2"]}
    assert {event["event"] for event in events} >= {"note", "progress", "model"}
    assert (events[-1]["event"], events[-1]["budget_met"]) == ("summary", 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("nothing",), "nothing does not exist; give a folder with models"),
        (("models", "--filter", "x*"), "there is no model to optimise in the folder models"),
        (("models", "--analyze"), "--analyze belongs to --dry-run"),
        (("models", "--alias", "champion"), "--alias, --stage and --tag tell MLflow's versions apart"),
        (("models", "--epochs", "2", "--no-finetune"), "no_finetune and epochs 2 exclude each other"),
    ],
)
def test_a_flag_that_makes_no_sense_is_one_line(
    ask: Ask, models: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(models.parent)
    done = ask("batch", *flags, "--budget", "0.5x")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"shoal: error: {message}" in done.stderr


def test_zero_is_a_value(ask: Ask, server: ServerProcess, models: Path, tmp_path: Path) -> None:
    flags = ("--epochs", "0", "--option", "max_kernel=3", "--out", tmp_path / "out")
    assert ask("batch", models / "a.pt2", "--budget", "0.5x", *flags).returncode == 0
    (one,) = _summary(tmp_path / "out").models
    with Client(server.address) as client:
        spec = client.get(one.outcome.job).spec
    assert (spec.fine_tuning.HasField("epochs"), spec.fine_tuning.epochs) == (True, 0)
    assert dict(spec.strategy.options) == {"max_kernel": 3}


def test_a_model_without_a_budget_is_refused(ask: Ask, models: Path, tmp_path: Path) -> None:
    done = ask("batch", models / "a.pt2", "--out", tmp_path / "out")
    assert (done.returncode, "it has no budget: give --budget" in done.stdout) == (2, True)


class Running:
    """A `shoal batch` of its own process."""

    def __init__(self, source: Path, out: Path, server: ServerProcess, told: Told, *flags: str) -> None:
        command = [sys.executable, "-m", "service.cli", "batch", str(source), "--budget", "0.5x", "--out", str(out)]
        self.process = subprocess.Popen(
            [*command, "--seed", str(int(told)), "--server", server.address, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            # Whoever started the tests in the background has them ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def signal_after(self, text: str, number: signal.Signals) -> None:
        """Sends a signal once a line with `text` was seen."""
        assert self.process.stderr is not None
        while text not in self.process.stderr.readline():
            assert self.process.poll() is None
        self.process.send_signal(number)

    def end(self) -> Done:
        """What it left behind."""
        stdout, stderr = self.process.communicate(timeout=60)
        return Done(self.process.returncode, stdout, stderr)


def test_a_batch_that_is_killed_goes_on_and_does_nothing_twice(
    server: ServerProcess, models: Path, tmp_path: Path
) -> None:
    (models / "c.pt2").write_bytes(f"{tmp_path} c".encode())
    before = len(_jobs(server))
    for text in ("] plan", "[1/3]"):
        running = Running(models, tmp_path / "out", server, Told.STEPS)
        running.signal_after(text, signal.SIGKILL)
        running.end()
    done = Running(models, tmp_path / "out", server, Told.STEPS).end()
    assert done.returncode == 0, done.stderr
    assert len(_jobs(server)) == before + 3
    assert _summary(tmp_path / "out").totals.budget_met == 3


def test_an_interrupt_leaves_the_jobs_and_says_how_to_go_on(
    server: ServerProcess, models: Path, tmp_path: Path
) -> None:
    running = Running(models, tmp_path / "out", server, Told.LONG_STEPS, "--jobs", "2")
    running.signal_after("] analyze", signal.SIGINT)
    left = running.end()
    assert left.returncode == 1
    assert "shoal: error: left; jobs that the server has go on. The same command goes on from here" in left.stderr
    before = len(_jobs(server))
    assert Running(models, tmp_path / "out", server, Told.LONG_STEPS, "--jobs", "2").end().returncode == 0
    # Those that were not created yet when it was interrupted are created now, and no other.
    assert len(_jobs(server)) <= before + 1
    assert _summary(tmp_path / "out").totals.budget_met == 2


@pytest.mark.slow  # a server of its own imports its engine at the first job
def test_a_server_that_dies_and_comes_back_is_waited_for(models: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "state") as own:
        running = Running(models, tmp_path / "out", own, Told.STEPS)
        assert running.process.stderr is not None
        while "] plan" not in running.process.stderr.readline():
            assert running.process.poll() is None
        own.end(signal.SIGKILL)
        own.start()
        done = running.end()
        assert done.returncode == 0, done.stdout
        assert len(_jobs(own)) == 2

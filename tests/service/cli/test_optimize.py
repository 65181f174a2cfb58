"""`shoal optimize` against a real server whose workers finish at once, take their time, or fail."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.client import Client
from tests.service.cli.command import environment, shoal
from tests.service.server_process import ServerProcess, Told
from tests.service.workers.reports import FILES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("data/train/cat/1.png", "data/train/dog/1.png", "data/test.npz"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "data"


def test_a_met_budget_exits_with_0_and_leaves_the_files(
    server: ServerProcess, model: Path, data: Path, tmp_path: Path
) -> None:
    done = shoal("optimize", model, "--budget", "0.5x", "--data", data, "--server", server.address, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("It is within the budget.")
    (out,) = (tmp_path / "shoal-out").iterdir()
    assert {path.name for path in out.iterdir()} == {*FILES, "report.json", "report.html", "manifest.json"}
    assert (out / "model.onnx").read_bytes() == FILES["model.onnx"]
    command = done.stdout.rstrip().splitlines()[-1]
    assert command.split()[:3] == ["shoal", "measure", f"shoal-out/{out.name}/model.onnx"]


def test_the_model_is_written_for_triton_too(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    flags = ("--budget", "0.5x", "--server", server.address, "--triton", "models")
    done = shoal("optimize", model, *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "  for Triton     models/net\n" in done.stdout
    assert "Check the files:\n  shoal verify shoal-out/" in done.stdout
    assert (tmp_path / "models/net/1/model.onnx").read_bytes() == FILES["model.onnx"]
    refused = shoal("optimize", model, *flags, "--detach", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--detach leaves before there are files for --triton" in refused.stderr


def test_json_is_all_there_is_on_standard_output(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    done = shoal(
        "optimize", model, "--budget", "0.5x", "--json", "--out", tmp_path / "out", SHOAL_SERVER=server.address
    )
    document = json.loads(done.stdout)
    assert (document["state"], document["outcome"]) == ("SUCCEEDED", "BUDGET_MET")
    assert document["speedup"] == pytest.approx(2.1)
    assert document["seconds"] > 0
    assert document["baseline"]["latency_ms"] == {"p50": 4.0, "p90": 4.0, "p99": 4.0}
    assert document["result"]["accuracy"] == pytest.approx(0.9)
    assert {Path(path).exists() for path in document["artifacts"].values()} == {True}
    assert done.returncode == 0


def test_progress_without_a_terminal_is_one_line_per_phase(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    flags = ["--seed", str(Told.STEPS), "--server", server.address]
    lines = shoal("optimize", model, "--budget", "0.5x", *flags, folder=tmp_path).stderr.splitlines()
    assert lines[0] == "net.pt2: 0.5x at p50, batch 1"
    phases = [match[1] for line in lines if (match := re.match(r"\[.*?\] (\w+)", line))]
    assert phases == ["upload", "load", "analyze", "baseline", "plan", "tune", "export", "measure", "report"]
    assert not any("\x1b" in line for line in lines)


def test_a_terminal_shows_every_phase_with_its_mark(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    flags = ["--budget", "0.5x", "--seed", str(Told.STEPS), "--server", server.address]
    screen = _on_a_terminal(["optimize", str(model), *flags], tmp_path)
    last = screen[screen.rindex("upload") :]
    assert [phase for phase in ("load", "plan", "tune", "report") if phase not in last] == []
    assert "100 %" in last
    assert "baseline 4.00 ms" in last


def _on_a_terminal(arguments: list[str], folder: Path) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "service.cli", *arguments]
    variables = environment(TERM="xterm", COLUMNS="100", LINES="40")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, cwd=folder, env=variables) as process:
        os.close(theirs)
        seen = b""
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the other end was closed
                    break
    os.close(ours)
    assert process.returncode == 0, seen
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())


@pytest.mark.parametrize(
    ("told", "error", "status"),
    [
        (Told.CALLER_ERROR, {"reason": "UNSAFE_MODEL", "message": "it cannot", "blame": "caller"}, 2),
        (Told.MACHINE_ERROR, {"reason": "DISK_FULL", "message": "it cannot", "blame": "machine"}, 1),
        (Told.OUR_ERROR, {"reason": "SURGERY", "message": "it cannot", "blame": "shoal"}, 1),
    ],
)
def test_a_failed_job_exits_by_whose_fault_it_was(
    server: ServerProcess, model: Path, tmp_path: Path, told: Told, error: dict[str, str], status: int
) -> None:
    flags = ["--seed", str(told), "--json", "--server", server.address]
    done = shoal("optimize", model, "--budget", "0.5x", *flags, folder=tmp_path)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == "shoal: error: it cannot"
    document = json.loads(done.stdout)
    assert (document["state"], document["outcome"]) == ("FAILED", None)
    assert document["error"] == error
    assert not (tmp_path / "shoal-out").exists()


def test_a_killed_worker_exits_with_1(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    flags = ["--seed", str(Told.DIE), "--server", server.address]
    done = shoal("optimize", model, "--budget", "0.5x", *flags, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("shoal: error: ")


def test_each_refused_field_is_one_line(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    flags = ["--mean", "0.5", "--std", "0", "--time-limit", "1s", "--strategy", "magic"]
    done = shoal("optimize", model, "--budget", "0.5x", *flags, "--server", server.address, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("shoal: error: ")]
    assert [line.split()[2] for line in errors][:2] == ["spec.preprocessing.std.0:", "spec.time_limit:"]


def test_detached_it_prints_the_name_and_leaves(server: ServerProcess, model: Path) -> None:
    flags = ["--seed", str(Told.SLEEP), "--detach", "--server", server.address]
    done = shoal("optimize", model, "--budget", "0.5x", *flags)
    assert done.returncode == 0, done.stderr
    with Client(server.address) as client:
        assert client.cancel(done.stdout.strip()).display_name == "net.pt2"


def test_an_unwritable_out_folder_is_one_line(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    done = shoal("optimize", model, "--budget", "0.5x", "--out", tmp_path / "out/deep", "--server", server.address)
    assert done.returncode == 1
    assert re.search(r"^shoal: error: .*out.*: (File exists|Not a directory)$", done.stderr, re.MULTILINE)


class Interrupted:
    """A `shoal optimize` that can be interrupted."""

    def __init__(self, model: Path, server: ServerProcess, told: Told) -> None:
        command = [sys.executable, "-m", "service.cli", "optimize", str(model), "--budget", "0.5x", "--json"]
        self.process = subprocess.Popen(
            [*command, "--seed", str(told), "--server", server.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def interrupt_after(self, text: str) -> None:
        """Sends SIGINT once a line with `text` was seen."""
        assert self.process.stderr is not None
        while text not in self.process.stderr.readline():
            assert self.process.poll() is None
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """The exit status and what else was said."""
        stdout, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stdout, stderr


def test_the_first_interrupt_cancels_the_job(server: ServerProcess, model: Path) -> None:
    command = Interrupted(model, server, Told.SLEEP)
    command.interrupt_after("tune")
    status, stdout, _ = command.end()
    assert (status, json.loads(stdout)["state"]) == (1, "CANCELLED")


def test_the_second_interrupt_leaves(server: ServerProcess, model: Path) -> None:
    command = Interrupted(model, server, Told.STUBBORN)
    command.interrupt_after("tune")
    command.interrupt_after("press Ctrl-C again to leave")
    status, stdout, stderr = command.end()
    assert (status, stdout) == (1, "")
    assert re.search(r"shoal: error: left; `shoal jobs watch \S+` follows the job", stderr)


def test_a_job_that_has_to_wait_says_for_how_many(model: Path, tmp_path: Path) -> None:
    flags = ["optimize", model, "--budget", "0.5x"]
    with ServerProcess(tmp_path / "state", workers=1) as server:
        shoal(*flags, "--seed", str(Told.STEPS), "--detach", "--server", server.address, folder=tmp_path)
        done = shoal(*flags, "--server", server.address, folder=tmp_path)
        assert "waiting for 1 unfinished job of this server" in done.stderr
        again = shoal(*flags, "--server", server.address, folder=tmp_path)
        assert "waiting" not in again.stderr

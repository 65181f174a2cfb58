"""The real command, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.cli.command import shoal, shoal_here

COMMANDS = (
    "agent",
    "agents",
    "analyze",
    "artifacts",
    "batch",
    "devices",
    "doctor",
    "health",
    "jobs",
    "latency-table",
    "measure",
    "optimize",
    "serve",
    "strategies",
    "tokens",
    "verify",
    "version",
)


def test_help_lists_the_commands() -> None:
    done = shoal("--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line] == list(COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from service.cli.app import run\n"
        "assert run(['--help']) == 0 and run(['optimize', '--help']) == 0\n"
        "heavy = {'torch', 'grpc', 'google.protobuf', 'numpy', 'pydantic', 'rich', 'onnxruntime', 'sqlalchemy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_version() -> None:
    assert shoal("--version").stdout == shoal("version").stdout
    assert shoal("version").stdout.startswith("shoal ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a command is missing"),
        (("optimise",), "No such command 'optimise'"),
        (("optimize", "net.pt2"), "Missing option '--budget'"),
        (("optimize", "nowhere.pt2", "--budget", "0.6x"), "MODEL nowhere.pt2 cannot be read"),
        (("optimize", "timm:resnet18", "--budget", "fast"), "'fast' is no budget"),
        (("optimize", "timm:resnet18", "--budget", "0x"), "between 0x and 1x"),
        (("optimize", "timm:resnet18", "--budget", "0.6x", "--data", "nowhere"), "--data nowhere does not exist"),
        (("optimize", "timm:resnet18", "--budget", "0.6x", "--epochs", "-1"), "Invalid value for '--epochs'"),
        (("optimize", "timm:resnet18", "--budget", "0.6x", "--no-finetune", "--epochs", "2"), "exclude each other"),
        (("optimize", "timm:resnet18", "--budget", "0.6x", "--preprocess", "nowhere"), "--preprocess nowhere cannot"),
        (("optimize", "timm:resnet18", "--budget", "0.6x", "--precision", "fp8"), "'fp8' is not one of"),
        (("optimize", "timm:resnet18", "--budget", "0.6x", "--seed", str(2**63)), "Invalid value for '--seed'"),
        (("analyze", "net.h5"), "MODEL must be a .pt2 file"),
        (("measure", "nowhere.onnx"), "ARTIFACT nowhere.onnx cannot be read"),
        (("serve", "--address", "0.0.0.0:0"), "set insecure_remote"),
        (("serve", "--metrics-address", "0.0.0.0:9464"), "metrics_address 0.0.0.0:9464 can be reached"),
    ],
)
def test_bad_usage_and_input_exit_with_2_and_one_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SHOAL_STATE_DIR", str(tmp_path / "state"))
    done = shoal_here(capsys, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shoal: error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "state").exists(), "a mistake that can be seen at once must not start anything"


def test_a_server_that_is_not_there_exits_with_1_and_one_line() -> None:
    done = shoal("jobs", "list", "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "shoal: error: no Shoal server answers at 127.0.0.1:1; start one with `shoal serve` or check the address\n"
    )

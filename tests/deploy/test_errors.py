"""What goes wrong in a process of ours is, to whoever asked, what it was there."""

from __future__ import annotations

import inspect
import json
import sys
import threading
from pathlib import Path

import pytest

from deploy import errors
from deploy.agent.child import do_in_child
from deploy.bench.work import FAILURES, Question
from deploy.errors import TOLD, DeployError
from deploy.measure.process import ask_worker
from deploy.measure.settings import TimingSettings

# Raised only in the process that asks: it writes files, converts them, checks settings and keeps the latency cache.
STAY = {"CacheError", "DeployError", "ExportError", "PrecisionError", "TimingSettingsError"}


def answering(kind: str) -> tuple[str, ...]:
    """A program that answers with a failure of this kind, as the worker and the agent's piece of work do."""
    answer = json.dumps({"error": {"kind": kind, "message": f"it was {kind}"}})
    return (sys.executable, "-I", "-c", f"print({answer!r})")


def test_every_class_either_travels_or_stays() -> None:
    classes = {name for name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, DeployError)}
    assert set(TOLD) | STAY == classes
    assert not set(TOLD) & STAY


@pytest.mark.parametrize("kind", TOLD)
def test_the_timing_process_s_failure_is_what_it_was(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.measure.process._COMMAND", answering(kind))
    with pytest.raises(TOLD[kind], match=f"it was {kind}") as caught:
        ask_worker([tmp_path / "never-read.onnx"], TimingSettings())
    assert type(caught.value) is TOLD[kind]


@pytest.mark.parametrize("kind", TOLD)
def test_the_failure_of_an_agent_s_work_is_what_it_was(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.agent.child._COMMAND", answering(kind))
    with pytest.raises(TOLD[kind], match=f"it was {kind}") as caught:
        do_in_child(Question("run", {}), tmp_path, threading.Event())
    assert type(caught.value) is TOLD[kind]
    assert kind in FAILURES

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.errors import MeasureCancelledError, MeasureError
from deploy.measure import turn
from deploy.measure.turn import lock_file, wait_for_turn

HOLDER = """
import sys, time
from pathlib import Path
from deploy.measure import turn
turn.lock_file = lambda: Path(sys.argv[1])
with turn.wait_for_turn():
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "timing.lock"
    monkeypatch.setattr(turn, "lock_file", lambda: path)
    return path


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "mine\n"
    return process


def test_a_measurement_waits_for_another_process(own_lock: Path) -> None:
    holder = hold(own_lock, 0.5)
    with wait_for_turn():
        assert holder.wait(5) == 0


def test_threads_of_one_process_take_turns_too() -> None:
    inside: list[int] = []

    def work() -> None:
        with wait_for_turn():
            inside.append(1)
            assert sum(inside) == 1
            time.sleep(0.05)
            inside.append(-1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inside) == 8


def test_nobody_waits_for_a_dead_process(own_lock: Path) -> None:
    holder = hold(own_lock, 60)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with wait_for_turn():
        pass


def test_waiting_can_be_cancelled() -> None:
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with wait_for_turn(), pytest.raises(MeasureCancelledError, match="waited for another one"), wait_for_turn(cancel):
        pass


def test_a_link_in_the_place_of_the_lock_is_refused(own_lock: Path) -> None:
    own_lock.symlink_to(own_lock.with_name("elsewhere"))
    with pytest.raises(MeasureError, match="cannot open the timing lock"), wait_for_turn():
        pass
    assert not own_lock.with_name("elsewhere").exists()


def test_every_user_has_a_lock_of_their_own() -> None:
    import os

    assert str(os.getuid()) in lock_file().name

from __future__ import annotations

from pathlib import Path

from service.worker.log import BoundedLog


def test_a_log_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    with BoundedLog(tmp_path / "log", 100) as log:
        tmp_path.joinpath("log").unlink()
        log.write(b"x" * 60)
        log.write(b"y" * 60)
        log.write(b"z" * 10)
    # What was lost is lost; the log goes on.
    assert tmp_path.joinpath("log").read_bytes().endswith(b"z" * 10)

from __future__ import annotations

from pathlib import Path

import pytest

from service.batch.ledger import FILENAME, Ledger
from service.batch.outcome import ModelOutcome
from service.registries import RegistryError

MET = ModelOutcome(name="net", verdict="BUDGET_MET", identity="a")


def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.note_job("a", 0, "optimizationJobs/one", "here:1")
        ledger.note_outcome("a", 0, MET)
        ledger.note_published("a", "models:/net/1", "models:/net-shoal/1")
        ledger.note_content("stamp", "ff", 7)
    with Ledger(tmp_path) as ledger:
        assert ledger.work("a").outcome == MET
        assert ledger.work("a").job == "optimizationJobs/one"
        assert ledger.published("a", "models:/net/1") == "models:/net-shoal/1"
        assert ledger.published("a", "models:/net/2") is None
        assert ledger.content("stamp") == ("ff", 7)


def test_a_new_attempt_puts_an_old_failure_aside(tmp_path: Path) -> None:
    failed = ModelOutcome(name="net", verdict="FAILED", blame="machine")
    with Ledger(tmp_path) as ledger:
        ledger.note_outcome("a", 1, failed)
        assert (ledger.work("a").attempt, ledger.work("a").outcome) == (1, failed)
        ledger.note_job("a", 2, "optimizationJobs/three", "here:1")
        assert (ledger.work("a").attempt, ledger.work("a").outcome) == (2, None)


def test_a_line_cut_short_spoils_no_other(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.note_outcome("a", 0, MET)
    with (tmp_path / FILENAME).open("ab") as file:
        file.write(b'{"kind": "outcome", "ident')
    with Ledger(tmp_path) as ledger:
        ledger.note_outcome("b", 0, MET)
    with Ledger(tmp_path) as ledger:
        assert (ledger.work("a").outcome, ledger.work("b").outcome) == (MET, MET)


def test_two_batches_never_share_a_folder(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(RegistryError, match="another `shoal batch` is at work"):
        Ledger(tmp_path)


def test_a_dry_run_leaves_no_trace(tmp_path: Path) -> None:
    with Ledger(tmp_path / "out", read_only=True) as ledger:
        ledger.note_outcome("a", 0, MET)
        assert ledger.work("a").outcome is None
    assert not (tmp_path / "out").exists()

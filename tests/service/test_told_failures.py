"""A failure on a device far away is, to the job, the failure that it was there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deploy.bench.work import Question
from deploy.errors import TOLD
from service.devices.exchange import Exchange
from service.devices.letters import ANSWER, FOLDER, DoneWork, write_whole
from service.faults import FAULTS, classify


def answer(folder: Path, kind: str, key: str) -> None:
    write_whole(folder / FOLDER / key / ANSWER, DoneWork(failure=(kind, "on the device")).model_dump_json())


@pytest.mark.parametrize("kind", TOLD)
def test_it_keeps_its_class_and_its_reason(kind: str, tmp_path: Path) -> None:
    ask = Exchange(tmp_path, partial(answer, tmp_path, kind), lambda _seconds: None)
    with pytest.raises(TOLD[kind], match="on the device") as caught:
        ask(Question("describe", {}))
    assert classify(caught.value) == FAULTS[TOLD[kind]]

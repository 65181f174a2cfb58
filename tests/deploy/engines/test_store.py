from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.engines.settings import Batches, BuildSettings
from deploy.engines.store import engine_key
from deploy.gpu import Gpu
from tests.deploy.gpus import SERVER

SETTINGS = BuildSettings()
HASH = "a" * 64


@pytest.mark.parametrize(
    "other",
    [
        ("b" * 64, SERVER, SETTINGS, "10.3.0"),
        (HASH, replace(SERVER, name="NVIDIA A10"), SETTINGS, "10.3.0"),
        (HASH, SERVER, replace(SETTINGS, batches=Batches(1, 4, 8)), "10.3.0"),
        (HASH, SERVER, replace(SETTINGS, optimization_level=5), "10.3.0"),
        (HASH, SERVER, SETTINGS, "10.4.0"),
    ],
)
def test_whatever_an_engine_depends_on_is_in_its_name(other: tuple[str, Gpu, BuildSettings, str]) -> None:
    assert engine_key(*other) != engine_key(HASH, SERVER, SETTINGS, "10.3.0")


def test_what_it_does_not_depend_on_is_not() -> None:
    patient = replace(SETTINGS, timeout_seconds=1.0)
    assert engine_key(HASH, SERVER, patient, "10.3.0") == engine_key(HASH, SERVER, SETTINGS, "10.3.0")

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from deploy.engines.timing_cache import cache_path, load_cache, save_cache
from tests.deploy.gpus import SERVER


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert load_cache(tmp_path / "none.cache") == b""


@pytest.mark.parametrize(
    ("gpu", "tensorrt"),
    [(replace(SERVER, name="NVIDIA A10"), "10.3.0"), (replace(SERVER, cuda="13.1"), "10.3.0"), (SERVER, "10.4.0")],
)
def test_another_device_or_version_has_another_cache(gpu: object, tensorrt: str, tmp_path: Path) -> None:
    assert cache_path(tmp_path, gpu, tensorrt) != cache_path(tmp_path, SERVER, "10.3.0")  # type: ignore[arg-type]


def test_equal_gpus_share_a_cache(tmp_path: Path) -> None:
    assert cache_path(tmp_path, replace(SERVER, index=1, uuid="f" * 32), "10.3.0") == cache_path(
        tmp_path, SERVER, "10.3.0"
    )


def test_nothing_is_lost_when_several_add_at_once(tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"

    def add(number: int) -> None:
        save_cache(path, lambda there: there + bytes([number]))

    threads = [Thread(target=add, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load_cache(path)) == list(range(16))

"""`shoal serve --web`: where pages are asked for, and with which names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.cli import serve as command
from service.cli.serve import WEB_ADDRESS
from service.settings import ServerSettings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """What servers were started with; none really is."""
    settings: list[ServerSettings] = []
    monkeypatch.setattr(command, "_serve", lambda given, _ready: settings.append(given))
    return settings


def serve(tmp_path: Path, *arguments: str) -> Any:
    return command.serve.main(["--state-dir", str(tmp_path), *arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "address"),
    [((), None), (("--web",), WEB_ADDRESS), (("--web", "127.0.0.1:0"), "127.0.0.1:0"), (("--web=[::1]:8",), "[::1]:8"),
     (("--web", "--workers", "2"), WEB_ADDRESS)],
)  # fmt: skip
def test_the_address_may_be_left_out(
    tmp_path: Path, started: list[ServerSettings], arguments: tuple[str, ...], address: str | None
) -> None:
    serve(tmp_path, *arguments)
    assert started[0].web_address == address


def test_the_environment_may_ask_for_pages(
    tmp_path: Path, started: list[ServerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_WEB", "127.0.0.1:9")
    serve(tmp_path)
    assert started[0].web_address == "127.0.0.1:9"


def test_names_of_proxies_are_a_setting(tmp_path: Path, started: list[ServerSettings]) -> None:
    serve(tmp_path, "--web", "--set", 'web_names=["shoal.example"]')
    assert started[0].web_names == ("shoal.example",)

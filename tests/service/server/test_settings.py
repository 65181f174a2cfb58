from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import ServerSettings


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.8.8:1", "unix:/tmp/x.sock"])
def test_this_machine_may_be_listened_on(tmp_path: Path, address: str) -> None:
    assert not ServerSettings(state_dir=tmp_path, address=address).remote


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", ":1"])
def test_the_network_may_be_listened_on_only_when_said_so(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValidationError, match="or set insecure_remote if the network is trusted"):
        ServerSettings(state_dir=tmp_path, address=address)
    said: list[dict[str, Any]] = [{"insecure_remote": True}, {"allow_remote": True}, {"tls_cert": "a", "tls_key": "b"}]
    for change in said:
        assert ServerSettings(state_dir=tmp_path, address=address, **change).remote


@pytest.mark.parametrize(
    "change",
    [{"workers": 0}, {"heartbeat_seconds": 16}, {"data_roots": ["/nonexistent"]}, {"worker_command": []}, {"typo": 1}],
)
def test_bad_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        ServerSettings(state_dir=tmp_path, **change)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"tls_cert": "a"}, "tls_cert and tls_key belong together"),
        ({"tls_key": "a"}, "tls_cert and tls_key belong together"),
        ({"tls_client_ca": "a"}, "which takes TLS"),
        ({"tls_cert": "a", "tls_key": "b", "tls_client_names": True}, "which tls_client_ca asks for"),
    ],
)
def test_half_of_tls_is_refused(tmp_path: Path, change: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValidationError, match=wanted):
        ServerSettings(state_dir=tmp_path, **change)


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    settings = ServerSettings(state_dir=Path("state"), data_roots=(Path("link"),))

    assert settings.state_dir == tmp_path / "state"
    assert settings.data_roots == (tmp_path / "real",)
    assert settings.database == f"sqlite:///{tmp_path}/state/shoal.db"

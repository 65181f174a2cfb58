"""A server on this machine that speaks the API of Google Cloud Storage."""

from __future__ import annotations

import os
import secrets
from typing import Any

import pytest
from gcp_storage_emulator.server import create_server

# Before anything imports gcsfs: else each client asks Google's own servers first who it is and what a bucket is like.
os.environ |= {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", "NO_GCE_CHECK": "true"}


class Gcs:
    """Started by its fixture. `url` is a fresh bucket's."""

    def __init__(self) -> None:
        bucket = f"bucket-{secrets.token_hex(6)}"
        self.url = f"gs://{bucket}/shoal"
        self._server: Any = create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
        self._server.start()
        self.port = self._server._api._httpd.server_address[1]  # the only place where it is told

    def stop(self) -> None:
        self._server.stop()


def surround(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Makes the surroundings those of somebody who uses such a server."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")

"""A real server that speaks S3, on this machine, which can be taken away and come back with all that it had."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer


class S3:
    """Started by its fixture. `url` is a fresh bucket's."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.bucket = f"bucket-{secrets.token_hex(6)}"
        self.url = f"s3://{self.bucket}/shoal"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> Any:
        return boto3.client("s3")

    def names(self) -> list[str]:
        """What is in the bucket, without the prefix, the mark and what readiness writes."""
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [each["Key"].removeprefix("shoal/") for each in found if "/." not in each["Key"]]

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        """Comes back at the same address."""
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()


def surround(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Makes the surroundings those of somebody who uses an S3 of their own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "whispered")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

"""Downloads, from a server of the test's own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from compressors.sources.fetch import fetch, save

CONTENT = b"weights"
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where files of a folder can be had; `torch.hub` keeps what it downloads in another folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / NAME).write_bytes(CONTENT)
    (tmp_path / "www" / "net-00000000.pth").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_file_is_put_where_torch_looks_for_it(url: str) -> None:
    path = save(f"{url}/{NAME}", check=True)

    assert path == Path(torch.hub.get_dir()) / "checkpoints" / NAME
    assert path.read_bytes() == CONTENT


def test_what_is_there_is_not_downloaded_again(url: str, tmp_path: Path) -> None:
    save(f"{url}/{NAME}", check=True)
    (tmp_path / "www" / NAME).unlink()

    assert save(f"{url}/{NAME}", check=True).read_bytes() == CONTENT


def test_what_is_not_what_its_name_says_is_refused(url: str) -> None:
    with pytest.raises(RuntimeError, match="invalid hash"):
        save(f"{url}/net-00000000.pth", check=True)


@pytest.mark.parametrize("name", ["timm:no_such_net", "torchvision:no_such_net", "diffusers:ddpm-cifar10"])
def test_names_that_nobody_publishes_are_left_to_who_reads_them(name: str) -> None:
    fetch(name, pretrained=True)

"""Published models are downloaded by a process that has the network and none of the job's files.

`python -m service.worker.fetching`, started by a worker before it confines itself. It is confined too, to the shared
cache, and opens nothing of what it downloads. The worker reads that later, without the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from compressors.errors import ModelError
from deploy.caller import private_stdout
from deploy.errors import SandboxError
from deploy.sandbox import Policy, confine
from service.spec import NamedModel
from service.worker.messages import WorkOrder

_COMMAND: Final = (sys.executable, "-P", "-m", "service.worker.fetching")
_OFFLINE: Final = "HF_HUB_OFFLINE"


def fetch_published(order: WorkOrder) -> None:
    """Has what the order names downloaded into the shared cache, if anything; from then on libraries ask no network.

    Raises:
        ModelError: It cannot be had, or this server downloads nothing.
        SandboxError: The process for it cannot be confined as it must be.
    """
    os.environ[_OFFLINE] = "1"
    named = order.spec.model.named
    if named is None or not _may_be_published(named):
        return
    if order.downloads:
        _fetch(named, order)
    elif named.pretrained or "/" in named.architecture:
        raise ModelError(
            f"{named.architecture} has to be downloaded, and this server's operator does not allow that "
            "(hub_downloads); give the model's folder, or a weights file"
        )


def _may_be_published(named: NamedModel) -> bool:
    prefix, _, name = named.architecture.partition(":")
    if prefix == "transformers":
        # Names without an owner may be types that the library knows, or old repositories.
        return "/" in name or "-" in name
    return "/" in name if prefix == "diffusers" else named.pretrained


def _fetch(named: NamedModel, order: WorkOrder) -> None:
    cache = order.cache_folder
    request = {
        "name": named.architecture,
        "pretrained": named.pretrained,
        "sandbox": order.sandbox,
        "cache": str(cache),
    }
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix="fetching-") as home:
        done = subprocess.run(  # noqa: S603 (our own module, our own interpreter)
            _COMMAND, input=json.dumps(request), stdout=subprocess.PIPE, env=_environment(home), text=True, check=False
        )
    _check(done, named.architecture)


def _environment(home: str) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name != _OFFLINE}
    return passed | {"HOME": home, "TMPDIR": home}


def _check(done: subprocess.CompletedProcess[str], name: str) -> None:
    try:
        answer = json.loads(done.stdout)
    except ValueError as exc:
        raise ModelError(f"{name} cannot be downloaded: the process for it ended with {done.returncode}") from exc
    if "unconfined" in answer:
        raise SandboxError(answer["unconfined"])
    if "error" in answer:
        raise ModelError(answer["error"])


def main() -> None:
    """Reads a request, downloads, answers."""
    from service.worker.main import die_with_parent

    answer = private_stdout()
    die_with_parent()
    json.dump(_answer(json.loads(sys.stdin.read())), answer)
    answer.flush()


def _answer(request: Mapping[str, Any]) -> dict[str, str]:
    try:
        confine(Policy(mode=request["sandbox"], writes=(Path(request["cache"]),), network="all"))
    except SandboxError as exc:
        return {"unconfined": str(exc)}
    # Only now: these import what starts threads.
    from compressors.sources.fetch import fetch

    try:
        fetch(request["name"], pretrained=request["pretrained"])
    except ModelError as exc:
        return {"error": str(exc)}
    return {}


if __name__ == "__main__":
    main()

"""Uploads what a request refers to."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli import figures, modelfile, parse, splits
from service.cli.request import ModelFlags, Uploaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from protos.shoal.v1.model_optimizer_pb2 import ArtifactKind
    from service.client import Client


def send_model(client: Client, flags: ModelFlags, note: Callable[[str], None]) -> Uploaded:
    """Uploads the model file, or the weights of a named architecture if there are any.

    A folder, and an `.onnx` file with external data, are packed first.

    Args:
        client: The server.
        flags: Which model.
        note: Told how far it is.
    """
    from protos.shoal.v1.model_optimizer_pb2 import ARTIFACT_KIND_MODEL, ARTIFACT_KIND_WEIGHTS

    if parse.architecture(flags.model) is None:
        path = Path(flags.model)
        if not modelfile.parts(path):
            return Uploaded(model=_send(client, path, ARTIFACT_KIND_MODEL, note))
        name = path.resolve().stem if path.is_file() else path.resolve().name
        with _packed(name, partial(modelfile.pack, path), note) as archive:
            return Uploaded(model=_send(client, archive, ARTIFACT_KIND_MODEL, note))
    if flags.weights is None:
        return Uploaded()
    return Uploaded(weights=_send(client, Path(flags.weights), ARTIFACT_KIND_WEIGHTS, note))


def send_split(client: Client, split: splits.Split, note: Callable[[str], None]) -> str:
    """Uploads one split and returns the artifact's name; folders and shards are packed first."""
    from protos.shoal.v1.model_optimizer_pb2 import ARTIFACT_KIND_DATA

    if isinstance(split, Path) and not split.is_dir():
        return _send(client, split, ARTIFACT_KIND_DATA, note)
    name = split.resolve().name if isinstance(split, Path) else split.files[0].stem
    with _packed(name, partial(splits.pack, split), note) as archive:
        return _send(client, archive, ARTIFACT_KIND_DATA, note)


@contextmanager
def _packed(name: str, pack: Callable[[Path], object], note: Callable[[str], None]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
        note(f"packing {name}")
        archive = Path(temporary) / f"{name}.tar"
        pack(archive)
        yield archive


def _send(client: Client, path: Path, kind: ArtifactKind.ValueType, note: Callable[[str], None]) -> str:
    def on_progress(done: int, total: int) -> None:
        note(f"{path.name}, {figures.data_size(done)} of {figures.data_size(total)}")

    note(path.name)
    return client.upload(path, kind, on_progress).name

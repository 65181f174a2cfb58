"""Uploads what a request refers to."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
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
        with _packed(path, modelfile.pack, note) as archive:
            return Uploaded(model=_send(client, archive, ARTIFACT_KIND_MODEL, note))
    if flags.weights is None:
        return Uploaded()
    return Uploaded(weights=_send(client, Path(flags.weights), ARTIFACT_KIND_WEIGHTS, note))


def send_split(client: Client, split: Path, note: Callable[[str], None]) -> str:
    """Uploads one split and returns the artifact's name; a class folder is packed first."""
    from protos.shoal.v1.model_optimizer_pb2 import ARTIFACT_KIND_DATA

    if not split.is_dir():
        return _send(client, split, ARTIFACT_KIND_DATA, note)
    with _packed(split, splits.pack, note) as archive:
        return _send(client, archive, ARTIFACT_KIND_DATA, note)


@contextmanager
def _packed(source: Path, pack: Callable[[Path, Path], object], note: Callable[[str], None]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
        note(f"packing {source.name}")
        archive = Path(temporary) / f"{source.resolve().stem if source.is_file() else source.resolve().name}.tar"
        pack(source, archive)
        yield archive


def _send(client: Client, path: Path, kind: ArtifactKind.ValueType, note: Callable[[str], None]) -> str:
    def on_progress(done: int, total: int) -> None:
        note(f"{path.name}, {figures.data_size(done)} of {figures.data_size(total)}")

    note(path.name)
    return client.upload(path, kind, on_progress).name

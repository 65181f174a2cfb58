"""Does on this machine what was asked from afar. The agent's half of `deploy.bench.remote`; needs no torch."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.bench.local import LocalBench
from deploy.bench.work import Answer, Question, read_batches, unpack_models, write_batches
from deploy.engines.metadata import metadata_path
from deploy.errors import MeasureError, ModelFileError
from deploy.measure.settings import TimingSettings

_MAX_MODELS = 4096
_MAX_THREADS = 1024
_MAX_BATCHES = 1 << 20
_MAX_BATCH = 1 << 16


def perform(question: Question, folder: Path, cancel: threading.Event | None = None) -> Answer:
    """Returns the answer to a question.

    Args:
        question: What is asked; it came over the network, and nothing in it is believed.
        folder: An empty folder for what is made on the way.
        cancel: Set it from another thread to stop a measurement.

    Raises:
        DeployError: It cannot be done; the message says why.
    """
    try:
        match question.kind:
            case "describe":
                return _describe(question.request)
            case "time" | "profile":
                return _measure(question, folder, cancel)
            case "edges":
                return _edges(question, folder)
            case "engine":
                return _engine(question, folder)
            case "run":
                return _run(question, folder)
    except (KeyError, TypeError, ValueError) as exc:
        msg = f"the request for work of the kind '{question.kind}' cannot be understood: {type(exc).__name__} {exc}"
        raise MeasureError(msg) from exc
    msg = f"this agent does not know work of the kind '{question.kind}'; the server may be newer than the agent"
    raise MeasureError(msg)


def _describe(request: Mapping[str, Any]) -> Answer:
    facts = _bench(request).facts()
    return Answer({"device": asdict(facts.device), "runtime_version": facts.runtime_version})


def _measure(question: Question, folder: Path, cancel: threading.Event | None) -> Answer:
    settings = TimingSettings(**{"processes": question.request.get("processes", 1), **question.request["settings"]})
    models = _models(question, folder)
    bench = LocalBench(settings.runtime, settings.device)
    ask = bench.time if question.kind == "time" else bench.profile
    return Answer(ask(models, settings, cancel))


def _edges(question: Question, folder: Path) -> Answer:
    request, models = question.request, _models(question, folder)
    made = folder / "made"
    made.mkdir()
    found = _bench(request).edges(models, int(request["batch"]), made)
    files = list(dict.fromkeys(path for path in found if path is not None))
    return Answer({"edges": [None if path is None else files.index(path) for path in found]}, tuple(files))


def _engine(question: Question, folder: Path) -> Answer:
    (model,) = _models(question, folder)
    made = folder / "made"
    made.mkdir()
    engine = _bench(question.request).engine(model, made)
    return Answer({"engine": engine is not None}, () if engine is None else (engine, metadata_path(engine)))


def _run(question: Question, folder: Path) -> Answer:
    request, files = question.request, question.files
    if len(files) < 2:
        msg = f"running a model needs its file and the inputs, got {len(files)} files"
        raise ModelFileError(msg)
    batches, inputs = _within(request["batches"], _MAX_BATCHES), _within(request["inputs"], _MAX_BATCHES)
    (model,) = unpack_models([list(range(len(files) - 1))], files, folder)
    bench, made, outputs = _bench(request), folder / "outputs.npy", 0
    with files[-1].open("rb") as stream, made.open("wb") as written:
        for batch in bench.run(model, read_batches(stream, batches, inputs), _within(request["threads"], _MAX_THREADS)):
            outputs = len(batch)
            write_batches([batch], written)
    return Answer({"outputs": outputs}, (made,))


def _bench(request: Mapping[str, Any]) -> LocalBench:
    # Absent where the server is older than the agent.
    batch = request.get("batch")
    within = None if batch is None else _within(batch, _MAX_BATCH)
    return LocalBench(str(request["runtime"]), str(request.get("device", "cpu")), within)


def _models(question: Question, folder: Path) -> list[Path]:
    places: Sequence[Sequence[int]] = question.request["models"]
    if not 1 <= len(places) <= _MAX_MODELS:
        msg = f"a request names {len(places)} models; wanted 1 to {_MAX_MODELS}"
        raise ModelFileError(msg)
    return unpack_models(places, question.files, folder / "models")


def _within(value: Any, most: int) -> int:
    number = int(value)
    if not 0 <= number <= most:
        msg = f"{number} is not from 0 to {most}"
        raise ValueError(msg)
    return number

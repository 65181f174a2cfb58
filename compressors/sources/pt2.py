"""Models from `torch.export.save`, without unpickling anything.

`torch.export.load` unpickles sample inputs, tensor subclasses and custom objects. Here the archive is read and checked
entry by entry, and torch is given a new archive that holds the checked program, raw tensors and nothing else.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from compressors.errors import ModelError, OptionError, UnsafeModelError, reason
from compressors.sources.archive import Entries, open_entries, write_entries
from compressors.sources.dryrun import dry_run
from compressors.sources.program import sanitise
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced

_PROGRAM = "models/model.json"
_PAYLOADS = {
    "data/weights/": ("data/weights/model_weights_config.json", re.compile(r"weight_\d+")),
    "data/constants/": ("data/constants/model_constants_config.json", re.compile(r"tensor_\d+")),
}
_MAX_ELEMENTS = 2**33


def read(source: ModelSource) -> Traced:
    """Returns the program in the file, and the names that its outputs had in it.

    Raises:
        UnsafeModelError: A payload is pickled, or the program could run code.
        ModelError: The file is damaged or of another format or version.
    """
    if source.path is None:
        raise OptionError("source.path", "a .pt2 source needs the path of the file")
    where = source.path.name
    with open_entries(source.path) as entries:
        _check_format(entries, where)
        checked, names = sanitise(entries[_PROGRAM], where)
        changed = {_PROGRAM: json.dumps(checked).encode(), "data/sample_inputs/model.pt": b""}
        tensors: list[str] = []
        for folder, (config, pattern) in _PAYLOADS.items():
            changed[config], found = _payloads(entries, folder, config, pattern, where)
            tensors += found
        with tempfile.TemporaryDirectory(prefix="shoal-model-") as place:
            clean = Path(place) / "clean.pt2"
            write_entries(clean, changed, {name: name for name in tensors}, entries)
            program = _load(clean, where)
    dry_run(program, where)
    return Traced(program, output_names=names)


def _check_format(entries: Entries, where: str) -> None:
    """Refuses whatever is not one exported program; what else zips of PyTorch hold is told apart in the message."""
    if "data.pkl" in entries and _PROGRAM not in entries:
        kind = "a TorchScript file" if any(name.startswith("code/") for name in entries) else "a pickle of torch.save"
        raise UnsafeModelError(f"{where} is {kind}, which runs code when it is loaded; use torch.export.save")
    if "serialized_exported_program.json" in entries:
        raise ModelError(
            f"{where} has the layout of torch 2.7 or older; save it again with torch.export.save of torch 2.11+"
        )
    if entries.get("archive_format") != b"pt2" or _PROGRAM not in entries:
        raise ModelError(f"{where} holds no exported program ({_PROGRAM}); write it with torch.export.save")
    if entries.get("archive_version", b"0") != b"0":
        raise ModelError(f"{where} has archive version {entries['archive_version'][:20]!r}, this Shoal reads 0")
    compiled = [name for name in entries if name.startswith("data/aotinductor/")]
    if compiled:
        raise UnsafeModelError(f"{where} holds compiled code ({compiled[0]!r}), which Shoal never loads")


def _payloads(
    entries: Entries, folder: str, config: str, names: re.Pattern[str], where: str
) -> tuple[bytes, list[str]]:
    """Returns the config of one folder and the names of its raw tensors, checked."""
    legacy = f"{folder}model.pt"
    if legacy in entries:
        raise UnsafeModelError(
            f"{where}: {legacy!r} is a pickle; save the model again with torch.export.save of torch 2.11+"
        )
    try:
        settings = json.loads(entries[config])
        items: list[dict[str, Any]] = list(settings["config"].values())
        found = dict.fromkeys(_payload(entries, folder, item, names, where) for item in items)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise ModelError(f"{where}: {config!r} is missing or damaged ({type(exc).__name__}: {reason(exc)})") from exc
    return json.dumps(settings).encode(), list(found)


def _payload(entries: Entries, folder: str, item: dict[str, Any], names: re.Pattern[str], where: str) -> str:
    """Returns the name of one tensor's entry; its device becomes the CPU."""
    path = f"{folder}{item['path_name']}"
    if item["use_pickle"] or not names.fullmatch(item["path_name"]):
        raise UnsafeModelError(f"{where}: {path!r} is a pickled object, which would run code when it is loaded")
    meta = item["tensor_meta"]
    meta["device"] = {"type": "cpu", "index": None}
    sizes = [size["as_int"] for size in meta["sizes"]]
    if path not in entries:
        raise ModelError(f"{where}: {path!r} is missing")
    elements = math.prod(sizes)
    if not 0 <= elements <= _MAX_ELEMENTS or (elements and not entries.size(path)):
        raise ModelError(f"{where}: {path!r} claims {elements} elements, its entry has {entries.size(path)} bytes")
    return path


def _load(path: Path, where: str) -> ExportedProgram:
    """Hands a checked archive to torch."""
    try:
        return torch.export.load(path)
    except Exception as exc:  # torch raises whatever its reader stumbles over
        raise ModelError(f"{where} cannot be read by torch {torch.__version__}: {reason(exc)}") from exc

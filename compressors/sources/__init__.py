"""The one door for models: whatever comes in becomes a `Graph`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from compressors.errors import ModelError, OptionError
from compressors.graph import Graph
from compressors.lift import Edges, lift
from compressors.sources import folder, named, onnx, pt2
from compressors.sources.quiet import quiet
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced

__all__ = ["ModelSource", "load", "preprocessing"]

_READERS: dict[str, Callable[[ModelSource], Traced]] = {
    "pt2": pt2.read,
    "onnx": onnx.read,
    "folder": folder.read,
    "named": named.read,
}


def load(source: ModelSource) -> Graph:
    """Returns the model as an editable graph; nothing in its file is ever executed.

    Raises:
        UnsafeModelError: The file asks for code to be run.
        ModelError: The file, the weights or the architecture cannot be used; the message says why.
        OptionError: The source itself is incomplete.
    """
    reader = _READERS.get(source.kind)
    if reader is None:
        raise OptionError("source.kind", f"unknown kind of model source {source.kind!r}; known: {', '.join(_READERS)}")
    with quiet():
        traced = reader(source)
        _check_finite(traced.program)
        name = source.name or (source.path.stem if source.path else "model")
        shapes = _open_shapes(source)
        return lift(traced.program, name, shapes or None, Edges(traced.ranges, traced.output_names))


def _open_shapes(source: ModelSource) -> Sequence[tuple[int, ...]] | Mapping[str, tuple[int, ...]]:
    """Returns the sample shapes that lifting may need; readers that build or trace the model have used them already."""
    if source.kind != "pt2":
        return ()
    return [source.sample_shape] if source.sample_shape else source.input_shapes


def preprocessing(source: ModelSource) -> dict[str, Any] | None:
    """Returns what the model's config says about its inputs, None where there is no such config.

    Keys: `mean` and `std` (per channel, of values in [0, 1]), `input_size` (channels, height, width), `interpolation`
    ("bilinear", "bicubic", ...), `crop_pct` (side of the central crop as a fraction of the resized image's) and
    `squash` (whether both sides of an image are set, whatever its proportions, and not only the shorter one).
    """
    readers = {"named": named.preprocessing, "folder": folder.preprocessing}
    return readers[source.kind](source) if source.kind in readers else None


def _check_finite(program: ExportedProgram) -> None:
    """Refuses NaN anywhere, and infinities in parameters and running statistics (a mask buffer may hold -inf)."""
    signature = program.graph_signature
    parameters = {spec.target for spec in signature.input_specs if spec.kind is InputKind.PARAMETER}
    for name, value in {**program.state_dict, **program.constants}.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
            continue
        if all(bool(bound.isfinite()) for bound in torch.aminmax(value.detach())):
            continue
        strict = name in parameters or name.rsplit(".", 1)[-1] in {"running_mean", "running_var"}
        bad = ~value.isfinite() if strict else value.isnan()
        if bool(bad.any()):
            raise ModelError(f"weight {name!r} holds {int(bad.sum())} values that are NaN or infinite")

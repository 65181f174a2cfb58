"""Which module of the original network an operator came from, as far as exporters tell."""

from __future__ import annotations

import ast
import re
from typing import Any

_SCOPES = "pkg.torch.onnx.name_scopes"
_LONGEST = 10_000


def scope_of(proto: Any, prefix: str = "") -> str:
    """Returns the dotted module path of a NodeProto, empty where nothing is known.

    torch's newer exporter writes it as metadata; torch's older one, tf2onnx and Keras as an operator name with slashes
    (`/layer1/layer1.0/conv1/Conv`).

    Args:
        proto: The operator.
        prefix: Names of the function calls that it was written out from, one a line.
    """
    for item in proto.metadata_props:
        if item.key == _SCOPES and len(item.value) < _LONGEST:
            return _from_metadata(item.value)
    calls = [part for part in prefix.split("\n") if part]
    return _from_name("/".join([*calls, proto.name]))


def _from_metadata(text: str) -> str:
    """Reads a list of nested paths whose last entry is the operator itself."""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    named = isinstance(scopes, list) and len(scopes) > 1 and all(isinstance(scope, str) for scope in scopes)
    return safe_path(scopes[-2]) if named else ""


def _from_name(name: str) -> str:
    """Joins the parts of a name with slashes; a part that repeats the one before it continues it."""
    if "/" not in name or len(name) > _LONGEST:
        return ""
    path: list[str] = []
    for part in filter(None, name.split("/")[:-1]):
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        else:
            path.append(part)
    return safe_path(".".join(path))


def safe_path(text: str) -> str:
    """Returns a dotted path of identifiers and numbers, at most 200 letters long."""
    parts = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in text.split(".")]
    return ".".join(part for part in parts if part)[:200].rstrip(".")

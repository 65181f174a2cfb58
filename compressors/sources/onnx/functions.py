"""Functions that a file brings along, and the operator sets that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources.onnx.limits import OLDEST_OPSET


@dataclass(frozen=True)
class Function:
    """A function of the file.

    Attributes:
        inputs: Its parameters' names.
        outputs: Its results' names.
        nodes: NodeProtos of its body.
        imports: Operator sets that the body follows.
        defaults: AttributeProtos by name, for attributes that a call may leave out.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Any, ...]
    imports: Any
    defaults: Mapping[str, Any]

    def bound(self, call: Any) -> list[Any]:
        """Returns the body's operators with the call's attributes in place of references to them."""
        values = {**self.defaults, **{item.name: item for item in call.attribute}}
        return [_bind(node, values) for node in self.nodes]


def functions(model: Any, where: str) -> dict[tuple[str, str, str], Function]:
    """Returns a file's functions by domain, name and overload.

    Raises:
        ModelError: One is there twice, or has the name of an operator of ONNX.
    """
    from onnx import defs

    found: dict[tuple[str, str, str], Function] = {}
    for item in model.functions:
        key = ("" if item.domain == "ai.onnx" else item.domain, item.name, item.overload)
        if key in found or (not key[0] and defs.has(item.name)):
            raise ModelError(f"{where}: the function {item.name!r} is there twice, or redefines an operator of ONNX")
        defaults = {attribute.name: attribute for attribute in item.attribute_proto}
        found[key] = Function(tuple(item.input), tuple(item.output), tuple(item.node), item.opset_import, defaults)
    return found


def opsets(imports: Any, where: str) -> dict[str, int]:
    """Returns the version of every operator set; ONNX's own is the empty name.

    Raises:
        UnsupportedModelError: The file follows a version that Shoal does not know.
    """
    from onnx import defs

    versions = {("" if item.domain == "ai.onnx" else item.domain): int(item.version) for item in imports}
    newest = defs.onnx_opset_version()
    own = versions.get("")
    if own is not None and not OLDEST_OPSET <= own <= newest:
        raise UnsupportedModelError(
            f"{where} follows opset {own}; this Shoal reads {OLDEST_OPSET} to {newest}. Export it with an opset "
            "in that range, or convert it with onnx.version_converter"
        )
    return versions


def _bind(node: Any, values: Mapping[str, Any]) -> Any:
    """Returns a node whose references to the function's attributes are filled in; left-out ones go."""
    if not any(item.ref_attr_name or item.HasField("g") for item in node.attribute):
        return node
    bound = type(node)()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for item in node.attribute:
        given = values.get(item.ref_attr_name) if item.ref_attr_name else item
        if given is None:
            continue
        copy = bound.attribute.add()
        copy.CopyFrom(given)
        copy.name = item.name
        if copy.HasField("g"):
            inner = [_bind(child, values) for child in copy.g.node]
            del copy.g.node[:]
            copy.g.node.extend(inner)
    return bound

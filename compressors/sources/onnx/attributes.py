"""What ONNX says about an operator: which form a file means, and which attributes that form takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressors.errors import ModelError

_KINDS = {"FLOAT": "f", "INT": "i", "STRING": "s", "FLOATS": "floats", "INTS": "ints", "STRINGS": "strings"}


@dataclass(frozen=True)
class Signature:
    """One form of an operator.

    Attributes:
        op: The operator's name; with the operator set before it where that is not ONNX's own.
        opset: The version that the file follows.
        since: The version in which this form appeared; 0 where ONNX does not know the operator.
        defaults: Attributes that may be left out.
        kinds: Attribute name to its kind, e.g. `INTS`.
    """

    op: str
    opset: int
    since: int
    defaults: Mapping[str, Any]
    kinds: Mapping[str, str]

    def value(self, item: Any, what: str) -> Any:
        """Returns an attribute as a Python value.

        Raises:
            ModelError: The operator has no such attribute, or one of another kind.
        """
        kind = item.AttributeType.Name(item.type)
        if item.type == item.UNDEFINED and item.name in self.kinds:
            kind = self.kinds[item.name]
        if self.since and self.kinds.get(item.name) != kind:
            raise ModelError(
                f"{what} has the attribute {item.name!r} of kind {kind}, which opset {self.opset} does not know"
            )
        return _plain(item, kind)


def signature(proto: Any, domain: str, versions: Mapping[str, int], where: str) -> Signature:
    """Returns the form of the operator that a NodeProto means.

    Raises:
        ModelError: Inputs, outputs or attributes are missing or too many.
    """
    from onnx import defs

    name = f"{domain}.{proto.op_type}" if domain else proto.op_type
    if domain not in versions and not (domain == "" and not proto.op_type):
        if not domain:
            raise ModelError(f"{where} uses ONNX operators ({proto.op_type}), but states no opset version")
        return Signature(name, 0, 0, {}, {})
    opset = versions[domain]
    if domain or not defs.has(proto.op_type, opset):
        return Signature(name, opset, 0, {}, {})
    return _known(proto, opset, where)


def _known(proto: Any, opset: int, where: str) -> Signature:
    from onnx import defs

    schema = defs.get_schema(proto.op_type, opset)
    what = f"{where}: {proto.op_type} {proto.name!r} (opset {opset})"
    for kind, names, low, high in (
        ("inputs", proto.input, schema.min_input, schema.max_input),
        ("outputs", proto.output, schema.min_output, schema.max_output),
    ):
        if not low <= len(names) <= high:
            raise ModelError(f"{what} has {len(names)} {kind}; wanted {low} to {high}")
    given = {item.name for item in proto.attribute}
    missing = [name for name, attribute in schema.attributes.items() if attribute.required and name not in given]
    if missing or len(given) != len(proto.attribute):
        raise ModelError(f"{what} lacks the attribute {', '.join(missing) or '(one is there twice)'}")
    defaults, kinds = {}, {}
    for key, attribute in schema.attributes.items():
        kinds[key] = attribute.type.name  # type: ignore[attr-defined]
        value = attribute.default_value
        if value.name and kinds[key] in _KINDS:
            defaults[key] = _plain(value, kinds[key])
    return Signature(proto.op_type, opset, schema.since_version, defaults, kinds)


def _plain(item: Any, kind: str) -> Any:
    """Returns the value of an attribute of a plain kind, None for others."""
    field = _KINDS.get(kind)
    if field is None:
        return None
    value = getattr(item, field)
    if kind == "STRING":
        return _text(value)
    if kind == "STRINGS":
        return tuple(_text(each) for each in value)
    return tuple(value) if kind in {"FLOATS", "INTS"} else value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")

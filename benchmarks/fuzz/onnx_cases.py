"""Broken ONNX files: fields of the messages, wires of the graph, bytes of the file, archives around it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import onnx
from onnx import TensorProto, helper

from benchmarks.fuzz.onnx_seeds import SIDE_FILE, seeds, side_bytes
from benchmarks.fuzz.values import FLOATS, INTEGERS, PATHS, STRINGS, Random, chance, integer, mangle, pick
from benchmarks.fuzz.zips import mangle_zip
from compressors.sources.onnx.operators import OPERATORS

_UNKNOWN = ("Loop", "Scan", "QLinearConv", "NonMaxSuppression", "RandomNormal", "FromTheFuture", "", "SequenceAt", "If")


def build(random: Random) -> dict[str, bytes]:
    """Returns one case: files by name; the first is the model."""
    proto = onnx.ModelProto()
    proto.CopyFrom(pick(random, _seeds()))
    if chance(random, 0.85):
        for _ in range(1 + int(random.geometric(0.5))):
            pick(random, _WAYS)(random, proto)
    data = proto.SerializeToString()
    if chance(random, 0.15):
        data = mangle(random, data, pick(random, _seeds()).SerializeToString())
    side = side_bytes()
    if chance(random, 0.12):
        return {"net.onnx": _archive(random, data, side)}
    return {"net.onnx": data, SIDE_FILE: side}


def whole() -> list[dict[str, bytes]]:
    """Returns the seeds as cases, unbroken."""
    return [{"net.onnx": proto.SerializeToString(), SIDE_FILE: side_bytes()} for proto in _seeds()]


@cache
def _seeds() -> list[onnx.ModelProto]:
    return seeds()


@cache
def _operators() -> tuple[str, ...]:
    return (*sorted(OPERATORS), *_UNKNOWN)


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                yield from _messages(item)


def _of(proto: Any, kind: type) -> list[Any]:
    return [item for item in _messages(proto) if isinstance(item, kind)]


def _any_field(random: Random, proto: onnx.ModelProto) -> None:
    """Changes any field of any message."""
    message = pick(random, list(_messages(proto)))
    fields = [field for field, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
    field = pick(random, fields if chance(random, 0.8) else list(message.DESCRIPTOR.fields))
    if field.is_repeated:
        _repeated(random, getattr(message, field.name), field)
    elif field.message_type is None:
        _set(random, message, field)
    elif chance(random, 0.5):
        message.ClearField(field.name)
    else:
        _borrow(random, getattr(message, field.name))


def _repeated(random: Random, items: Any, field: Any) -> None:
    at = int(random.integers(len(items))) if len(items) else 0
    kind = int(random.integers(4)) if len(items) else 3
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.extend([items[at]] * int(random.integers(1, 4)))
    elif field.message_type is not None:
        _borrow(random, items.add() if kind == 3 else items[at])
    elif kind == 2:
        items[at] = _scalar(random, field, items[at])
    else:
        items.append(_scalar(random, field, None))


def _set(random: Random, message: Any, field: Any) -> None:
    if chance(random, 0.15):
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(random, field, getattr(message, field.name)))


def _borrow(random: Random, message: Any) -> None:
    """Puts a message of the same type from any seed in place of one."""
    found = _of(pick(random, _seeds()), type(message))
    if found:
        message.CopyFrom(pick(random, found))


def _scalar(random: Random, field: Any, old: Any) -> Any:
    kind = field.type
    if kind == field.TYPE_STRING:
        return pick(random, STRINGS + PATHS)
    if kind == field.TYPE_BYTES:
        return mangle(random, old or b"12345678", b"\xff" * 100)
    if kind in {field.TYPE_FLOAT, field.TYPE_DOUBLE}:
        return pick(random, FLOATS)
    if kind == field.TYPE_ENUM:
        return pick(random, [value.number for value in field.enum_type.values])
    number = integer(random, int(old or 0))
    bits = 32 if kind == field.TYPE_INT32 else 64
    if kind in {field.TYPE_UINT64, field.TYPE_UINT32}:
        return number % 2 ** (64 if kind == field.TYPE_UINT64 else 32)
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _wire(random: Random, proto: onnx.ModelProto) -> None:
    """Connects an operator to another value: dangling, circular, absent, or of another shape."""
    nodes = _of(proto, onnx.NodeProto)
    names = [name for item in nodes for name in (*item.input, *item.output)]
    names += [item.name for item in proto.graph.initializer] + ["", "x", "nowhere"]
    if not nodes:
        return
    item = pick(random, nodes)
    side = item.output if chance(random, 0.25) else item.input
    if len(side) and chance(random, 0.7):
        side[int(random.integers(len(side)))] = pick(random, names)
    elif len(side) and chance(random, 0.5):
        side.pop()
    else:
        side.append(pick(random, names))


def _operator(random: Random, proto: onnx.ModelProto) -> None:
    """Turns an operator into another one, its attributes kept or dropped."""
    nodes = _of(proto, onnx.NodeProto)
    if nodes:
        item = pick(random, nodes)
        item.op_type = pick(random, _operators())
        if chance(random, 0.6):
            del item.attribute[:]
        if chance(random, 0.1):
            item.domain = pick(random, ("com.microsoft", "ai.onnx", "ai.onnx.ml", "d", "x", "ai.onnx.training"))
        _required(random, item)


def _required(random: Random, item: onnx.NodeProto) -> None:
    """Adds attributes that the operator's schema has, with values off the track."""
    for name, kind in _schema(item.op_type):
        if any(attribute.name == name for attribute in item.attribute) or chance(random, 0.5):
            continue
        value = {
            "INT": lambda: pick(random, INTEGERS) if chance(random, 0.3) else int(random.integers(-2, 5)),
            "INTS": lambda: _integers(random),
            "FLOAT": lambda: pick(random, FLOATS),
            "FLOATS": lambda: [pick(random, FLOATS) for _ in range(int(random.integers(1, 5)))],
            "STRING": lambda: pick(
                random, (*STRINGS, "SAME_UPPER", "VALID", "reflect", "edge", "linear", "DCR", "ij,jk->ik")
            ),
        }.get(kind)
        if value is not None:
            item.attribute.append(
                helper.make_attribute(name, value(), attr_type=onnx.AttributeProto.AttributeType.Value(kind))
            )


@cache
def _schema(op: str) -> tuple[tuple[str, str], ...]:
    if not onnx.defs.has(op):
        return ()
    return tuple((name, item.type.name) for name, item in onnx.defs.get_schema(op).attributes.items())


def _integers(random: Random) -> list[int]:
    length = pick(random, (0, 1, 1, 2, 2, 2, 3, 4, 4, 8, 40))
    small = chance(random, 0.6)
    return [int(random.integers(-3, 6)) if small else pick(random, INTEGERS) for _ in range(length)]


def _attribute(random: Random, proto: onnx.ModelProto) -> None:
    """Changes an attribute's value or kind."""
    items = _of(proto, onnx.AttributeProto)
    if not items:
        return
    item = pick(random, items)
    kind = int(random.integers(4))
    if kind == 0:
        item.type = pick(random, list(onnx.AttributeProto.AttributeType.values()))
    elif len(item.ints):
        item.ints[:] = _integers(random) if kind == 1 else [integer(random, value) for value in item.ints]
    elif item.type == item.INT:
        item.i = integer(random, item.i)
    elif item.type == item.FLOAT:
        item.f = pick(random, FLOATS)
    elif item.type == item.STRING:
        item.s = pick(random, STRINGS).encode()


def _tensor(random: Random, proto: onnx.ModelProto) -> None:
    """Makes a stored tensor lie about its shape, type, bytes, or where they are."""
    items = _of(proto, TensorProto)
    if not items:
        return
    item = pick(random, items)
    kind = int(random.integers(7))
    if kind == 0 and len(item.dims):
        item.dims[int(random.integers(len(item.dims)))] = integer(random, item.dims[0])
    elif kind == 1:
        item.dims[:] = _integers(random)
    elif kind == 2:
        item.data_type = pick(random, [*TensorProto.DataType.values(), 99, -1])
    elif kind == 3 and item.raw_data:
        item.raw_data = mangle(random, item.raw_data, b"\xff" * 64)
    elif kind == 4 and item.raw_data:
        _consistent(random, item)
    else:
        _outside(random, item)


def _consistent(random: Random, item: TensorProto) -> None:
    """Gives a tensor other numbers of the same kind and count, so that only what computes with them can object."""
    if item.data_type == TensorProto.INT64:
        count = len(item.raw_data) // 8
        item.raw_data = b"".join(integer(random).to_bytes(8, "little", signed=True) for _ in range(count))
    else:
        sizes = [int(random.integers(0, 5)) for _ in range(int(random.integers(0, 6)))]
        width = {TensorProto.FLOAT: 4, TensorProto.BOOL: 1}.get(item.data_type, 8)
        count = 1
        for size in sizes:
            count *= size
        item.dims[:] = sizes
        item.raw_data = (item.raw_data * (count + 1))[: count * width]


def _outside(random: Random, item: TensorProto) -> None:
    item.data_location = TensorProto.EXTERNAL
    if chance(random, 0.5):
        item.ClearField("raw_data")
    del item.external_data[:]
    length = pick(random, (432, len(item.raw_data), 0, 16, integer(random)))
    choices = (("location", pick(random, PATHS + (SIDE_FILE,) * 9)), ("offset", integer(random)), ("length", length))
    for key, value in (*choices, ("checksum", "00")):
        if chance(random, 0.85):
            entry = item.external_data.add()
            entry.key, entry.value = key, pick(random, STRINGS) if chance(random, 0.05) else str(value)


def _version(random: Random, proto: onnx.ModelProto) -> None:
    """Says that the file follows another opset."""
    for item in proto.opset_import:
        if chance(random, 0.8):
            item.version = int(random.integers(5, 27)) if chance(random, 0.9) else integer(random)


def _input(random: Random, proto: onnx.ModelProto) -> None:
    """Changes the shape or the type of an input."""
    if not len(proto.graph.input):
        return
    tensor = pick(random, proto.graph.input).type.tensor_type
    if chance(random, 0.3):
        tensor.elem_type = pick(random, [*TensorProto.DataType.values(), 99, -1])
    elif len(tensor.shape.dim) and chance(random, 0.8):
        item = pick(random, tensor.shape.dim)
        if chance(random, 0.6):
            item.dim_value = integer(random, item.dim_value)
        else:
            item.dim_param = pick(random, STRINGS)
    elif chance(random, 0.5):
        tensor.shape.dim.add().dim_value = integer(random)
    elif len(tensor.shape.dim):
        tensor.shape.dim.pop()


def _nest(random: Random, proto: onnx.ModelProto) -> None:
    """Puts graphs into graphs, or lets functions call each other."""
    if len(proto.functions) and chance(random, 0.6):
        function = pick(random, proto.functions)
        call = function.node.add()
        call.op_type, call.domain = pick(random, ("Inner", "Outer")), "d"
        call.input.extend(["a", "w"][: int(random.integers(3))])
        call.output.append(pick(random, ("b", "t", "q", "a")))
        return
    for _ in range(pick(random, (1, 2, 5, 12, 40))):
        inner = onnx.GraphProto()
        inner.CopyFrom(proto.graph)
        if inner.ByteSize() > 200_000:
            return
        del inner.input[:]
        node = onnx.NodeProto(op_type="If", input=["c"], output=["y"])
        for name in ("then_branch", "else_branch"):
            node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)
            del inner.initializer[:]
        proto.graph.ClearField("node")
        proto.graph.node.append(node)


def _grow(random: Random, proto: onnx.ModelProto) -> None:
    """Makes a tensor grow through many operators."""
    graph = proto.graph
    last = "x"
    op = pick(random, ("Concat", "Mul", "Add", "Expand", "Tile", "MatMul", "Reshape", "Identity", "Pow"))
    for index in range(pick(random, (3, 10, 40, 400))):
        node = graph.node.add(op_type=op, input=[last, last], output=[f"grown{index}"])
        if op == "Concat":
            node.attribute.append(helper.make_attribute("axis", int(random.integers(0, 4))))
        last = f"grown{index}"
    if len(graph.output):
        graph.output[0].name = last


def _archive(random: Random, data: bytes, side: bytes) -> bytes:
    """Packs the model; the archive is broken at times."""
    buffer = io.BytesIO()
    names = {pick(random, PATHS) if chance(random, 0.1) else "net.onnx": data, SIDE_FILE: side}
    if chance(random, 0.5):
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in names.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                if chance(random, 0.1):
                    info.type, info.linkname = pick(random, b"0123456789LKxgSV").to_bytes(1), pick(random, PATHS)
                tar.addfile(info, io.BytesIO(content))
        made = buffer.getvalue()
        return mangle(random, made, made) if chance(random, 0.5) else made
    return mangle_zip(random, names)


_WAYS: tuple[Callable[[Random, onnx.ModelProto], None], ...] = (
    *(_any_field, _any_field, _any_field, _wire, _wire, _operator, _operator, _operator, _attribute, _attribute),
    *(_tensor, _tensor, _version, _input, _nest, _grow),
)

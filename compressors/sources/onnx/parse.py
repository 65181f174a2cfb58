"""From the bytes of an ONNX file to an `OnnxModel`: everything is checked here, and protobuf ends here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch

from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources.onnx.attributes import Signature, signature
from compressors.sources.onnx.files import Beside
from compressors.sources.onnx.functions import Function, functions, opsets
from compressors.sources.onnx.limits import FILE_BYTES, FUNCTION_DEPTH, NODES
from compressors.sources.onnx.model import Body, Input, Node, OnnxModel
from compressors.sources.onnx.order import sort_nodes
from compressors.sources.onnx.scopes import scope_of
from compressors.sources.onnx.tensors import ExternalData, read_tensor, torch_type
from compressors.sources.onnx.wire import check_wire


def parse(path: Path) -> OnnxModel:
    """Returns the model in the file, its functions written out.

    Raises:
        ModelError: The file is damaged, contradicts itself or breaks a cap.
        UnsafeModelError: Its external data lies where it must not.
        UnsupportedModelError: It holds a kind of value that Shoal does not compute with.
    """
    size = path.stat().st_size
    if size > FILE_BYTES:
        raise ModelError(
            f"{path.name} has {size} bytes, more than the {FILE_BYTES} allowed; keep large weights as external data"
        )
    return _Parser(_proto(path), path.name, Beside(path)).run()


def _proto(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    data = path.read_bytes()
    check_wire(data, path.name)
    try:
        model = ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as exc:
        raise ModelError(f"{path.name} is truncated or damaged, or is no ONNX file ({exc}); export it again") from exc
    if not model.HasField("graph"):
        raise ModelError(f"{path.name} holds no graph; wanted a model written by an ONNX exporter")
    return model


@final
class _Parser:
    """One file, on the way to an `OnnxModel`."""

    def __init__(self, proto: Any, where: str, external: ExternalData) -> None:
        self.proto = proto
        self.where = where
        self.external = external
        self.functions: dict[tuple[str, str, str], Function] = functions(proto, where)
        self.tensors: dict[str, torch.Tensor] = {}
        self.literals: set[str] = set()
        self.count = 0

    def run(self) -> OnnxModel:
        graph = self.proto.graph
        self._initializers(graph, {})
        inputs = tuple(self._input(item) for item in graph.input if item.name not in self.tensors)
        taken = {item.name for item in inputs}
        if len(taken) != len(inputs) or "" in taken:
            raise ModelError(f"{self.where}: two inputs have one name, or one has none")
        nodes = self._nodes(graph.node, opsets(self.proto.opset_import, self.where), {}, "")
        nodes = sort_nodes(nodes, taken | set(self.tensors), self.where)
        known = taken | set(self.tensors) | {name for node in nodes for name in node.outputs}
        outputs = tuple(item.name for item in graph.output)
        for name in outputs:
            if name not in known:
                raise ModelError(f"{self.where}: the output {name!r} is computed by nothing")
        if not inputs or not outputs:
            raise ModelError(f"{self.where} has {len(inputs)} inputs and {len(outputs)} outputs; wanted one or more")
        return OnnxModel(self.where, inputs, outputs, tuple(nodes), self.tensors, frozenset(self.literals))

    def _input(self, item: Any) -> Input:
        kind = item.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedModelError(f"{self.where}: the input {item.name!r} is a {kind or 'nothing'}, not a tensor")
        tensor = item.type.tensor_type
        dtype = torch_type(tensor.elem_type, f"{self.where}: the input {item.name!r}")
        if not tensor.HasField("shape"):
            return Input(item.name, dtype, None)
        sizes = tuple(
            int(size.dim_value) if size.HasField("dim_value") else (size.dim_param or None) for size in tensor.shape.dim
        )
        if any(isinstance(size, int) and size < 0 for size in sizes):
            sizes = tuple(None if isinstance(size, int) and size < 0 else size for size in sizes)
        return Input(item.name, dtype, sizes)

    def _initializers(self, graph: Any, names: dict[str, str]) -> None:
        """Reads the stored tensors of one graph; `names` maps its names to unique ones."""
        if len(graph.sparse_initializer):
            raise UnsupportedModelError(f"{self.where} stores weights as sparse tensors; export them dense")
        for proto in graph.initializer:
            name = names.get(proto.name, proto.name)
            self._store(name, proto, f"{self.where}: the initializer {proto.name!r}")

    def _store(self, name: str, proto: Any, what: str) -> None:
        if not name or name in self.tensors:
            raise ModelError(f"{what} is there twice, or has no name")
        self.tensors[name] = read_tensor(proto, self.external, what)

    def _nodes(self, protos: Any, versions: dict[str, int], names: dict[str, str], prefix: str) -> list[Node]:
        """Returns operators with functions written out and constants stored; `names` renames values."""
        nodes: list[Node] = []
        for proto in protos:
            self.count += 1
            if self.count > NODES:
                raise ModelError(f"{self.where} holds more than {NODES} operators; no exporter writes that")
            nodes += self._node(proto, versions, names, prefix)
        return nodes

    def _node(self, proto: Any, versions: dict[str, int], names: dict[str, str], prefix: str) -> list[Node]:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        function = self.functions.get((domain, proto.op_type, proto.overload))
        if function is not None:
            return self._call(proto, function, versions, names, prefix)
        inputs = tuple(names.get(name, name) for name in proto.input)
        outputs = tuple(names.get(name, name) for name in proto.output)
        form = signature(proto, domain, versions, self.where)
        if proto.op_type == "Constant" and not domain:
            self._constant(proto, outputs)
            return []
        attributes = self._attributes(proto, form, versions, names, prefix)
        return [Node(form.op, form.opset, form.since, proto.name, scope_of(proto, prefix), inputs, outputs, attributes)]

    def _attributes(
        self, proto: Any, form: Signature, versions: dict[str, int], names: dict[str, str], prefix: str
    ) -> dict[str, Any]:
        """Returns attributes as Python values, defaults filled in; subgraphs are parsed too."""
        values = dict(form.defaults)
        what = f"{self.where}: {proto.op_type} {proto.name!r}"
        for item in proto.attribute:
            if item.type == item.GRAPH:
                values[item.name] = self._body(item.g, versions, names, f"{prefix}{proto.output[0]}/{item.name}/")
            elif item.type == item.TENSOR:
                values[item.name] = self._array(item.t, f"{what}, attribute {item.name!r}")
            else:
                values[item.name] = form.value(item, what)
        return values

    def _array(self, proto: Any, what: str) -> Any:
        """Returns an attribute's tensor as numbers, which the tracer leaves alone."""
        return read_tensor(proto, self.external, what).numpy()

    def _constant(self, proto: Any, outputs: tuple[str, ...]) -> None:
        """Stores the value of a Constant operator."""
        what = f"{self.where}: Constant {proto.name or ''!r}"
        if len(outputs) != 1 or len(proto.attribute) != 1:
            raise ModelError(f"{what} must have one value and one output")
        item = proto.attribute[0]
        if item.name == "value" and item.type == item.TENSOR:
            self._store(outputs[0], item.t, what)
        elif item.name in {"value_int", "value_ints"}:
            self._literal(outputs[0], list(item.ints) if item.name == "value_ints" else item.i, torch.int64)
        elif item.name in {"value_float", "value_floats"}:
            self._literal(outputs[0], list(item.floats) if item.name == "value_floats" else item.f, torch.float32)
        else:
            raise UnsupportedModelError(f"{what} is a {item.name!r}; wanted numbers in a dense tensor")
        self.literals.add(outputs[0])

    def _literal(self, name: str, value: Any, dtype: torch.dtype) -> None:
        if name in self.tensors:
            raise ModelError(f"{self.where}: {name!r} is there twice")
        self.tensors[name] = torch.tensor(value, dtype=dtype)

    def _body(self, graph: Any, versions: dict[str, int], names: dict[str, str], prefix: str) -> Body:
        """Returns a branch; what it computes gets names of its own."""
        if prefix.count("/") > 2 * FUNCTION_DEPTH or len(graph.input):
            return Body((), ())  # A loop's body; loops are refused by name.
        own = {item.name for item in graph.initializer} | {name for node in graph.node for name in node.output if name}
        inner = {**names, **{name: prefix + name for name in own}}
        self._initializers(graph, inner)
        nodes = self._nodes(graph.node, versions, inner, prefix)
        return Body(tuple(nodes), tuple(inner.get(item.name, item.name) for item in graph.output))

    def _call(
        self, proto: Any, function: Function, versions: dict[str, int], names: dict[str, str], prefix: str
    ) -> list[Node]:
        """Writes a function out in place of its call."""
        label = f"{self.where}: the function {proto.op_type!r}"
        depth = prefix.count("\n")
        if depth > FUNCTION_DEPTH:
            raise ModelError(f"{label} calls functions more than {FUNCTION_DEPTH} deep, or itself")
        inside = f"{prefix}{proto.name or next(iter(proto.output), '')}\n"
        inputs = [names.get(name, name) for name in proto.input]
        outputs = [names.get(name, name) for name in proto.output]
        if len(inputs) > len(function.inputs) or len(outputs) > len(function.outputs):
            raise ModelError(f"{label} is called with more inputs or outputs than it has")
        inputs += [""] * (len(function.inputs) - len(inputs))
        inner = {name: f"{inside}{name}" for node in function.nodes for name in node.output if name}
        inner |= dict(zip(function.inputs, inputs, strict=True))
        passed = [(name, got) for name, got in zip(function.outputs, outputs, strict=False) if got]
        inner |= {name: got for name, got in passed if name not in function.inputs}
        bound = function.bound(proto)
        nodes = self._nodes(bound, opsets(function.imports, self.where) | _custom(versions), inner, inside)
        copies = [(inner[name], got) for name, got in passed if name in function.inputs]
        return nodes + [Node("Identity", 13, 13, "", "", (source,), (got,)) for source, got in copies]


def _custom(versions: dict[str, int]) -> dict[str, int]:
    """Returns the versions of operator sets other than ONNX's own."""
    return {domain: version for domain, version in versions.items() if domain}

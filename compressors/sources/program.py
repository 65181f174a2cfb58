"""The JSON of an exported program, checked before torch interprets it.

Reading such a file with torch resolves operator names by `getattr` from the `torch` module, evaluates size expressions
as Python, and keeps guard code to be executed. So: operators come from a list, expressions may only do arithmetic on
symbols, and whatever the engine does not need (guards, stack traces, tree specs, custom metadata) is dropped.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch._export.serde.schema import SCHEMA_VERSION
from torch._ops import OpOverload

from compressors.errors import ModelError, UnsafeModelError, UnsupportedModelError, reason
from compressors.lift.names import flat_names

_PLAIN = {
    *(
        f"_operator.{name}"
        for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "getitem")
    ),
    *(f"_operator.{name}" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "getitem")),
    *(f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_")),
    *(f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")),
    *(f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "ite", "sqrt")),
    "torch._sym_sqrt",
    "torch.ops.higher_order.wrap_with_set_grad_enabled",
    "torch.ops.higher_order.wrap_with_autocast",
}
_OPERATOR = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w*)\.(\w+)")
_DENIED = {"from_file", "_print", "warn", "save"}
_FUNCTIONS = set(
    """
    Symbol Integer Rational Float Add Mul Pow Max Min Mod Eq Ne Lt Le Gt Ge And Or Not Where Identity
    FloorDiv CleanDiv CeilDiv FloatTrueDiv IntTrueDiv ModularIndexing PythonMod PowByNatural
    CeilToInt FloorToInt TruncToFloat TruncToInt RoundToInt ToFloat
    """.split()  # noqa: SIM905 - forty quoted names are harder to read
)
_SYMBOL = re.compile(r"[su]\d+|zuf?\d+|zf\d+")
_POWERS = range(9)
_FLAGS = {"positive", "integer", "nonnegative", "real", "evaluate"}
_SYNTAX = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.Add, ast.Pow, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_CODE_OBJECTS = ("as_operator", "as_custom_obj", "custom_obj", "as_getattr")
_KEPT_METADATA = ("nn_module_stack", "torch_fn")


def sanitise(data: bytes, where: str) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Returns a program's JSON with everything that could run code refused or dropped, and its outputs' names.

    Args:
        data: Content of `models/model.json`.
        where: The archive's name, for messages.

    Raises:
        UnsafeModelError: An operator, an expression or an argument could run code.
        ModelError: The JSON is broken or of another version.
    """
    try:
        program = json.loads(data)
        _check_version(program["schema_version"], where)
        nodes = list(_objects(program))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ModelError(
            f"{where}: models/model.json is no exported program ({type(exc).__name__}: {reason(exc)})"
        ) from exc
    for item in nodes:
        _check(item, where)
    names = _output_names(program)
    program["guards_code"] = []
    program["graph_module"].update(metadata={}, treespec_namedtuple_fields={}, module_call_graph=[_root_call()])
    return program, names


def _output_names(program: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the names under which the program returned its tensors; None where it does not say so plainly."""
    calls = program["graph_module"].get("module_call_graph") or [{}]
    try:
        written = json.loads(calls[0]["signature"]["out_spec"])[1]
        return flat_names(written, _children, _keys)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _children(spec: dict[str, Any]) -> list[Any] | None:
    """Returns the parts of a container, None for a tensor."""
    return None if spec["type"] is None else list(spec["children_spec"])


def _keys(spec: dict[str, Any]) -> Any:
    """Returns the keys of a container that has some, whatever its type."""
    return json.loads(spec["context"]) if isinstance(spec["context"], str) else None


def _root_call() -> dict[str, Any]:
    """Returns a calling convention without any custom container type; the engine passes flat tensors."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    empty = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    args = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    spec = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [args, empty]}])
    signature: dict[str, Any] = {
        "inputs": [],
        "outputs": [],
        "in_spec": spec,
        "out_spec": json.dumps([1, leaf]),
        "forward_arg_names": None,
    }
    return {"fqn": "", "signature": signature}


def _check_version(version: dict[str, int], where: str) -> None:
    if int(version["major"]) != SCHEMA_VERSION[0]:
        raise ModelError(
            f"{where} was saved in version {version['major']}.{version['minor']} of the export format, torch "
            f"{torch.__version__} reads {SCHEMA_VERSION[0]}.x; save it again with a matching torch"
        )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every JSON object, at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check(item: dict[str, Any], where: str) -> None:
    """Checks one object, and drops its metadata; a tensor of an accelerator moves to the CPU."""
    if "expr_str" in item:
        _check_expression(item["expr_str"], where)
    if "target" in item and "inputs" in item:
        _check_operator(item["target"], where)
        metadata = item.get("metadata")
        kept = metadata.items() if isinstance(metadata, dict) else ()
        item["metadata"] = {key: value for key, value in kept if key in _KEPT_METADATA}
    for key in _CODE_OBJECTS:
        if item.get(key) is not None:
            raise UnsafeModelError(f"{where}: the program passes an object ({key}), which would have to be unpickled")
    if set(item) == {"type", "index"} and isinstance(item["type"], str):
        item.update(type="cpu", index=None)


def _check_operator(target: Any, where: str) -> None:
    target = target if isinstance(target, str) else str(target)[:100]
    if target in _PLAIN:
        return
    match = _OPERATOR.fullmatch(target)
    if match is None and re.fullmatch(r"torch\.ops\.\w+\.\w+(\.\w+)?", target):
        raise UnsupportedModelError(
            f"{where} uses the operator {target!r}; Shoal knows PyTorch's own (torch.ops.aten) only"
        )
    if match is None or match[1] in _DENIED:
        raise UnsafeModelError(f"{where} calls {target!r}, which is no tensor operator")
    packet = getattr(torch.ops.aten, match[1], None)
    if not isinstance(getattr(packet, match[2], None), OpOverload):
        raise ModelError(f"{where} uses the operator {target!r}, which torch {torch.__version__} does not have")


def _check_expression(text: Any, where: str) -> None:
    """Refuses a size expression that is more than arithmetic on symbols: torch evaluates it as Python."""
    try:
        tree = ast.parse(str(text)[:10_000], mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise ModelError(f"{where}: {str(text)[:100]!r} is no size expression ({reason(exc)})") from exc
    if not all(_harmless(node) for node in ast.walk(tree)):
        raise UnsafeModelError(f"{where}: the size expression {str(text)[:100]!r} is more than arithmetic")


def _harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Call):
        power = _calls(node) in {"Pow", "PowByNatural"}
        return _calls(node) in _FUNCTIONS and (not power or _small_power(node.args))
    if isinstance(node, ast.keyword):
        return node.arg in _FLAGS
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _SYMBOL.fullmatch(node.value) is not None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _small_power([node.left, node.right])
    return isinstance(node, _SYNTAX)


def _small_power(operands: list[ast.expr]) -> bool:
    """Says whether a power is one of a symbol, as in the area of a square map; a tower of numbers would be computed."""
    symbol = isinstance(operands[0], ast.Name) or (
        isinstance(operands[0], ast.Call) and _calls(operands[0]) == "Symbol"
    )
    return symbol and isinstance(operands[-1], ast.Constant) and operands[-1].value in _POWERS


def _calls(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""

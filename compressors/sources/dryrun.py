"""What a program from a file says about its values, against what its operators make of them.

A file states the shape and type of every value, and nothing forces that to be true. Here all operators run once on
tensors without memory, at the sizes for which the program was traced: what comes after may trust the statements, and
nothing has been allocated before its size was known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, final

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OperatorBase
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from compressors.errors import ModelError, reason

MAX_ELEMENTS: Final = 2**30
"""Elements of one value: four gigabytes in float32, for the batch size that the program was traced with."""

_UNKNOWN: Final = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
"""What cannot be known without data; the lift decides about these operators."""


def dry_run(program: ExportedProgram, where: str) -> None:
    """Makes sure that a program fits together.

    Args:
        program: Just read.
        where: The file's name, for messages.

    Raises:
        ModelError: A weight or a result is not what the program says, an operator does not fit its arguments, or a
            value is too large.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        _Dry(program.graph_module, where).run(*_inputs(program, mode, where))


def _inputs(program: ExportedProgram, mode: FakeTensorMode, where: str) -> Iterable[Any]:
    """Yields stand-ins for weights, as they are, and inputs, as the program says."""
    values = {**program.constants, **program.state_dict}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    specs = program.graph_signature.input_specs
    if len(nodes) != len(specs):
        raise ModelError(f"{where}: the program has {len(nodes)} inputs and weights, its signature {len(specs)}")
    for node, spec in zip(nodes, specs, strict=True):
        stored = None if spec.kind is InputKind.USER_INPUT else values.get(str(spec.target))
        if isinstance(stored, torch.Tensor):
            _compare(node, stored, f"{where}: the weight {spec.target!r}")
            yield mode.from_tensor(stored, static_shapes=True)
        else:
            yield _made(node, where)


@final
class _Dry(fx.Interpreter):
    """Runs the operators and compares every result with what the program says."""

    def __init__(self, module: fx.GraphModule, where: str) -> None:
        super().__init__(module)
        self.where = where
        self.extra_traceback = False  # it would become part of our messages

    def run_node(self, n: fx.Node) -> Any:
        """Returns the result of one operator.

        Raises:
            ModelError: It is not what the program says.
        """
        if n.op != "call_function":
            return super().run_node(n)
        name = str(n.target) if isinstance(n.target, OperatorBase) else getattr(n.target, "__name__", "?")
        what = f"{self.where}: the operator {name[:100]!r} ({n.name[:100]!r})"
        try:
            result = self._call(n)
        except ModelError:
            raise
        except _UNKNOWN:
            result = _made(n, self.where)
        except Exception as exc:  # an operator raises whatever its arguments lead it to
            raise ModelError(f"{what} does not fit its arguments: {reason(exc)}; export the model again") from exc
        _compare(n, result, what)
        return result

    def _call(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        bodies = [index for index, arg in enumerate(args) if isinstance(arg, fx.GraphModule)]
        if isinstance(n.target, HigherOrderOperator) and bodies:
            return _Dry(args[bodies[0]], self.where).run(*args[bodies[0] + 1 :])
        return self.call_function(n.target, args, kwargs)


def _made(node: fx.Node, where: str) -> Any:
    """Returns a stand-in for what the program says about a value."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return tuple(map(_number, value)) if isinstance(value, tuple | list) else _number(value)
    sizes = [_number(size) for size in value.shape]
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ModelError(f"{where}: the value {node.name[:100]!r} has the shape {sizes}; wanted sizes that are known")
    _check_size(sizes, f"{where}: the value {node.name[:100]!r}")
    return torch.empty(sizes, dtype=value.dtype)


def _number(value: Any) -> Any:
    """Returns the number behind a symbolic one for which the program was traced, None where there is none."""
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return value.node.hint if value.node.has_hint() else None
    return value


def _compare(node: fx.Node, got: Any, what: str) -> None:
    """Compares a result, or each of several, with what the program says.

    Raises:
        ModelError: They differ, or it is too large.
    """
    said = node.meta.get("val")
    pairs = [(said, got)]
    if isinstance(said, tuple | list) and isinstance(got, tuple | list):
        if len(said) != len(got):
            raise ModelError(f"{what} has {len(got)} results, the program says {len(said)}; export the model again")
        pairs = list(zip(said, got, strict=True))
    for left, right in pairs:
        if isinstance(right, torch.Tensor):
            _check_size(right.shape, what)
        if left is not None and not _agree(left, right):
            raise ModelError(f"{what} is {_shown(right)}, the program says {_shown(left)}; export the model again")


def _agree(said: Any, got: Any) -> bool:
    if isinstance(said, torch.Tensor) != isinstance(got, torch.Tensor):
        return False
    if not isinstance(said, torch.Tensor):
        return _number(said) is None or got is None or bool(_number(said) == _number(got))
    same = len(said.shape) == len(got.shape) and said.dtype == got.dtype
    return same and all(_agree(left, right) for left, right in zip(said.shape, got.shape, strict=True))


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{[_number(size) for size in value.shape]}"
    return repr(_number(value))[:100]


def _check_size(shape: Iterable[Any], what: str) -> None:
    count = 1
    for size in shape:
        count *= int(size)
    if count > MAX_ELEMENTS:
        raise ModelError(f"{what} has {count} elements, more than the {MAX_ELEMENTS} allowed")

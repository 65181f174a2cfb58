"""One walk over an exported program; the cases are in the package docstring."""

from __future__ import annotations

import operator
from typing import Any, final

import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from compressors import modules
from compressors.errors import ModelError, UnsupportedModelError
from compressors.lift import schema
from compressors.lift.attention import ATTENTION, add_heads
from compressors.lift.batch import free_sizes, shares_row
from compressors.lift.edges import is_nothing
from compressors.lift.place import Placer, path_of
from compressors.lift.refuse import refuse
from compressors.lift.values import fold, is_constant, map_leaves, traced_dtype, traced_shape
from compressors.modules import Constant
from compressors.tidy import tidy

_DEPENDS_ON_LAYOUT = {ATTENTION, torch.ops.aten.conv2d.default}
_PASS_THROUGH = {"detach", "detach_", "alias", "lift_fresh_copy", "lift_fresh", "contiguous", "clone"}
_DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"}
_MAYBE_VIEWS = {"reshape", "flatten", "to", "reshape_as", "type_as", "_to_copy", "expand_as", "unflatten"}
_ASSERTIONS = ("_assert_", "sym_constrain_range")
_OWN_STATE = "the model changes its own state ({}) when it runs; call model.eval() before exporting"
_INLINED = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
_RENAMED = {"view": torch.ops.aten.reshape.default, "_unsafe_view": torch.ops.aten.reshape.default}


class AliasedWriteError(Exception):
    """An in-place operator writes memory that a view shares; the program needs functionalisation first."""


@final
class Walk:
    """Lifts one program, node by node."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = fx.Graph()
        self.placer = Placer(program)
        self.env: dict[fx.Node, Any] = {}
        self.owner: dict[fx.Node, fx.Node] = {}
        self.sharing: dict[fx.Node, list[fx.Node]] = {}
        self.views: dict[fx.Node, fx.Node] = {}
        self.order: dict[fx.Node, float] = {node: index for index, node in enumerate(program.graph.nodes)}
        self.attributes: dict[int, fx.Node] = {}
        self.state: dict[fx.Node, str] = {}
        self.batch: fx.Node | None = None
        self.batch_size: Any = None

    def run(self) -> fx.GraphModule:
        """Returns the lifted module.

        Raises:
            AliasedWriteError: See there.
        """
        self._placeholders()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
        self._output()
        self.placer.root.eval()
        module = fx.GraphModule(self.placer.root, self.graph, class_name="Lifted")
        return tidy(module).eval()

    def _placeholders(self) -> None:
        """Maps weights to constants and user inputs to placeholders; notes the first input's leading size."""
        values = {**self.program.constants, **self.program.state_dict}
        nodes = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(nodes, self.program.graph_signature.input_specs, strict=True):
            self._own(node, node)
            if spec.kind is not InputKind.USER_INPUT:
                self.state[node] = str(spec.target)
                self.env[node] = _weight(str(spec.target), values.get(str(spec.target)))
            elif not isinstance(spec.arg, TensorArgument):
                self.env[node] = getattr(spec.arg, "value", None)
            else:
                self.env[node] = self.graph.placeholder(node.name)
                shape = traced_shape(node)
                if self.batch is None and shape:
                    self.batch_size = shape[0]
                    self.batch = self.graph.call_function(torch.ops.aten.sym_size.int, (self.env[node], 0))

    def _output(self) -> None:
        """Returns user outputs only; a program that writes its buffers was exported in training mode."""
        (node,) = (n for n in self.program.graph.nodes if n.op == "output")
        returned: Any = node.args[0]
        values = []
        for spec, argument in zip(self.program.graph_signature.output_specs, returned, strict=True):
            if spec.kind is not OutputKind.USER_OUTPUT:
                raise ModelError(_OWN_STATE.format(spec.target))
            if not is_nothing(spec.arg):
                values.append(self._attribute(self.env[argument]) if isinstance(argument, fx.Node) else argument)
        if not values or not all(isinstance(value, fx.Node) for value in values):
            kinds = ", ".join(type(value).__name__ for value in values) or "nothing"
            raise UnsupportedModelError(f"every output of a model must be a tensor, this one returns {kinds}")
        self.graph.output(values[0] if len(values) == 1 else tuple(values))

    def _call(self, node: fx.Node) -> None:
        """Lifts one call."""
        target: Any = node.target
        if isinstance(target, HigherOrderOperator):
            self._inline(node)
            return
        name = schema.base_name(target) if isinstance(target, OpOverload) else target.__name__
        args = tuple(map_leaves(list(node.args), self._value))
        kwargs = map_leaves(dict(node.kwargs), self._value)
        if not (is_constant(args) and is_constant(kwargs)) or schema.is_random(target):
            refuse(node, name, path_of(node))
        self._own(node, self._memory_owner(node, name))
        if isinstance(target, OpOverload) and schema.shares_memory(target):
            first: Any = node.args[0]
            self.views[node] = self.views.get(first, first)
        if schema.writes(target):
            self._refuse_state(node)
        if name.startswith(_ASSERTIONS):
            return
        if target is operator.getitem and isinstance(args[0], tuple | list):
            self.env[node] = args[0][args[1]]
        elif target is torch.ops.aten.sym_size.int:
            self.env[node] = self._size(node, args)
        else:
            self.env[node] = self._compute(node, name, args, kwargs)
        if schema.writes(target) and not (self._fresh(node) and is_constant(self.env[node])):
            self._rebind(node)

    def _compute(self, node: fx.Node, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Cases 1, 2, 4 and 5."""
        target: Any = node.target
        if not schema.is_random(target):
            if is_constant(args) and is_constant(kwargs):
                return fold(target, args, kwargs, in_place=self._fresh(node))
            if name.startswith("new_") and is_constant(args[1:]) and not self._sized_by_batch(args[1]):
                return fold(target, (Constant(torch.empty(0, dtype=traced_dtype(node))), *args[1:]), kwargs)
        if self._without_effect(node, name, args):
            return (args[0], None) if name == "native_dropout" else args[0]
        return self._emit(node, target, args, kwargs)

    def _value(self, old: Any) -> Any:
        """Returns what an old node has become; other values unchanged."""
        if not isinstance(old, fx.Node):
            return old
        if old not in self.env:
            raise UnsupportedModelError(f"the model uses {old.name!r} in a way that Shoal cannot edit")
        return self.env[old]

    def _own(self, node: fx.Node, owner: fx.Node) -> None:
        """Notes whose memory a result lives in."""
        self.owner[node] = owner
        self.sharing.setdefault(owner, []).append(node)

    def _memory_owner(self, node: fx.Node, name: str) -> fx.Node:
        """Returns the node that owns the memory of `node`'s result."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return node
        shares = name in _MAYBE_VIEWS | _PASS_THROUGH | _DROPOUTS or node.target is operator.getitem
        if isinstance(node.target, OpOverload):
            shares = shares or schema.shares_memory(node.target)
        return self.owner.get(source, source) if shares else node

    def _fresh(self, node: fx.Node) -> bool:
        """Says whether a result lives in memory that the graph allocated; views of constants there are true views."""
        return self.owner[node].op != "placeholder"

    def _refuse_state(self, node: fx.Node) -> None:
        """Refuses a call that overwrites a weight or a view of one; a copy of one may be written."""
        first: Any = node.args[0]
        written = self.views.get(first, first)
        if written in self.state:
            raise ModelError(_OWN_STATE.format(self.state[written]))

    def _rebind(self, node: fx.Node) -> None:
        """Case 3: whoever reads the overwritten tensor from now on reads the result."""
        written = node.args[0]
        before = self.env[written]  # type: ignore[index]
        read_later = [
            other
            for other in self.sharing[self.owner[node]]
            if other is node or any(self.order[user] > self.order[node] for user in other.users)
        ]
        # Whoever is not read later never will be: without it, a long chain of writes stays linear in its length.
        self.sharing[self.owner[node]] = read_later
        for other in read_later:
            if other is node or other not in self.env:
                continue
            if other is not written and self.env[other] is not before:
                raise AliasedWriteError
            self.env[other] = self.env[node]

    def _size(self, node: fx.Node, args: tuple[Any, ...]) -> Any:
        """Returns one shared node for the batch size, a number for fixed sizes."""
        value = node.meta["val"]
        if isinstance(value, int):
            return value
        if isinstance(args[0], Constant):
            return args[0].value.shape[args[1]]
        if str(value) == str(self.batch_size):
            return self.batch
        return self.graph.call_function(torch.ops.aten.sym_size.int, args)

    def _without_effect(self, node: fx.Node, name: str, args: tuple[Any, ...]) -> bool:
        """Case 2: says whether the call only passes its first argument on."""
        if name.rstrip("_") in _DROPOUTS:
            if schema.bind(node.target, node.args, node.kwargs).get("train"):  # type: ignore[arg-type]
                raise ModelError(f"dropout in {path_of(node)!r} is active; call model.eval() before exporting")
            return True
        if name in _PASS_THROUGH:
            return not _lays_out(node, name)
        source = node.args[0] if node.args else None
        if name == "slice":
            return traced_shape(node) == traced_shape(source) and len(args) < 5
        return name in {"to", "_to_copy", "type_as"} and traced_dtype(node) == traced_dtype(source)

    def _emit(self, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Cases 4 and 5: a module, or a function."""
        if not isinstance(target, OpOverload):
            return self._function(node, target, args, kwargs)
        if schema.writes(target):
            target = schema.functional(target)
            if target is None:
                raise AliasedWriteError
        arguments = schema.bind(target, args, kwargs)
        name = schema.base_name(target)
        data = modules.data_input(name, arguments)
        if isinstance(data, fx.Node):
            module = modules.build(name, arguments, len(traced_shape(node.args[0])))
            if module is not None:
                called = self._module(node, module, arguments, data)
                return (called, None, None) if schema.results(target) > 1 else called
        return self._function(node, target, args, kwargs)

    def _module(self, node: fx.Node, module: nn.Module, arguments: modules.Arguments, data: fx.Node) -> fx.Node:
        """Adds a module call."""
        name = self.placer.module(node, module, arguments)
        called = self.graph.call_module(name, (data,))
        called.meta["path"] = name
        return called

    def _function(self, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """Adds a plain call; weights among its arguments become attributes, fixed batch sizes become free."""
        name = schema.base_name(target) if isinstance(target, OpOverload) else target.__name__
        if isinstance(self.batch_size, int):
            assert self.batch is not None
            args = free_sizes(name, args, self.batch_size, self.batch)
            if name == "cat" and shares_row(args[0], self.batch_size):
                args = ([self._repeated(item) for item in args[0]], *args[1:])
        args = tuple(map_leaves(list(args), lambda value: self._attribute(value, path_of(node))))
        kwargs = map_leaves(kwargs, lambda value: self._attribute(value, path_of(node)))
        target = _RENAMED.get(name, target)
        called = self.graph.create_node("call_function", target, args, kwargs, name.strip("_"))
        called.meta["path"] = path_of(node)
        return add_heads(node, called) if target is ATTENTION else called

    def _repeated(self, value: Any) -> Any:
        """Case 6: returns a table with equal rows as one row, repeated to the batch size."""
        if not shares_row([value], self.batch_size):
            return value
        row = Constant(value.value[:1].contiguous())
        sizes = [self.batch, *[-1] * (value.value.dim() - 1)]
        return self.graph.call_function(torch.ops.aten.expand.default, (self._attribute(row), sizes))

    def _sized_by_batch(self, sizes: Any) -> bool:
        """Says whether a shape leads with a batch size that the tracer fixed."""
        fixed = self.batch_size
        return isinstance(fixed, int) and isinstance(sizes, list | tuple) and bool(sizes) and sizes[0] == fixed

    def _attribute(self, value: Any, reader: str = "") -> Any:
        """Returns a constant tensor as a `get_attr` node, read in the module `reader`; anything else unchanged."""
        if not isinstance(value, Constant):
            return value
        key = id(value.value)
        if key not in self.attributes:
            self.attributes[key] = self.graph.get_attr(self.placer.tensor(value, len(self.attributes), reader))
        return self.attributes[key]

    def _inline(self, node: fx.Node) -> None:
        """Puts the body of a `with torch.no_grad()` or a disabled autocast in place of the call."""
        name = str(node.target)
        bodies = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
        if name not in _INLINED or (name == "wrap_with_autocast" and node.args[2] is not False):
            raise UnsupportedModelError(f"the model contains {name} in {path_of(node)!r}, which Shoal cannot edit")
        body = getattr(self.program.graph_module, str(bodies[0].target)).graph.nodes
        outside: Any = node.args[node.args.index(bodies[0]) + 1 :]
        inside = [n for n in body if n.op == "placeholder"]
        for source, placeholder in zip(outside, inside, strict=True):
            self.env[placeholder] = self.env[source]
            self._own(placeholder, self.owner[source])
        self.order.update({inner: self.order[node] + index / (len(body) + 1) for index, inner in enumerate(body)})
        for inner in body:
            if inner.op == "call_function":
                self._call(inner)
            elif inner.op == "output":
                results: Any = inner.args[0]
                self.env[node] = tuple(self._value(r) for r in results)
                self._own(node, node)


def _lays_out(node: fx.Node, name: str) -> bool:
    """Says whether a copy is there for attention or a convolution: kernel, and so rounding, depend on the layout."""
    source: Any = node.args[0]
    before, after = (one.meta.get("val") for one in (source, node))
    if name != "contiguous" or not node.users or not isinstance(before, torch.Tensor):
        return False
    depends = all(user.target in _DEPENDS_ON_LAYOUT for user in node.users)
    return depends and after is not None and before.stride() != after.stride()


def _weight(name: str, value: Any) -> Constant:
    """Returns the tensor behind a parameter, buffer or constant placeholder."""
    if not isinstance(value, torch.Tensor):
        raise UnsupportedModelError(f"the model holds {name!r}, which is not a tensor")
    return Constant(value, name)

"""What goes in and what comes out: specs of a lifted graph's edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, OutputKind, TensorArgument

from compressors.errors import ModelError, UnsupportedModelError, reason
from compressors.graph import TensorSpec
from compressors.lift.names import output_names, unique
from compressors.shapes import PROBE, output_nodes, propagate

Given = Sequence[tuple[int, ...]] | Mapping[str, tuple[int, ...]] | None
"""Sample shapes from the user: in order, or by name."""

_SAME_VALUES = {"view", "reshape", "_to_copy", "to", "clone", "contiguous", "unsqueeze", "squeeze", "expand", "alias"}


@dataclass(frozen=True)
class Edges:
    """What is known about a program's inputs and outputs beyond the program itself.

    Attributes:
        ranges: Values of integer inputs by name: the smallest, and what they stay below.
        output_names: One name per output of the program; its own are used where this is None.
    """

    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    output_names: tuple[str, ...] | None = None


def input_specs(
    program: ExportedProgram, given: Given = None, ranges: Mapping[str, tuple[int, int]] | None = None
) -> tuple[TensorSpec, ...]:
    """Returns one spec per tensor input.

    Integers that look up a table stay below its size; what is called a mask is one.

    Raises:
        ModelError: The given sample shapes do not fit, or are needed and missing.
    """
    names = [spec.arg.name for spec in program.graph_signature.input_specs if is_data(spec)]
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    shapes = _by_name(names, given)
    specs = []
    for name in names:
        value = nodes[name].meta["val"]
        if not value.dim():
            raise UnsupportedModelError(f"input {name!r} has no batch dimension")
        shape = _sample_shape(name, tuple(value.shape[1:]), shapes.get(name))
        low, high = (ranges or {}).get(name) or _range(program, nodes[name])
        specs.append(TensorSpec(name, shape, value.dtype, low, high))
    if not specs:
        raise UnsupportedModelError("the model takes no tensor, so there is nothing to feed it with")
    return tuple(specs)


def _by_name(names: Sequence[str], given: Given) -> Mapping[str, tuple[int, ...]]:
    if given is None or isinstance(given, Mapping):
        unknown = [name for name in given or () if name not in names]
        if unknown:
            raise ModelError(f"the model has no input {unknown[0]!r}; it takes {', '.join(names)}")
        return given or {}
    if len(given) != len(names):
        raise ModelError(f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(given)} sample shapes")
    return {name: tuple(shape) for name, shape in zip(names, given, strict=True)}


def _range(program: ExportedProgram, node: fx.Node) -> tuple[int, int]:
    """Returns the values that an input may take, as far as the program shows it."""
    if node.meta["val"].is_floating_point() or node.meta["val"].is_complex():
        return 0, 2
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target}
    rows = []
    pending = [node]
    while pending:
        read = pending.pop()
        for user in read.users:
            name = str(user.target).split(".")[1] if "." in str(user.target) else ""
            if name == "embedding" and user.args[1] is read and isinstance(user.args[0], fx.Node):
                rows.append(int(user.args[0].meta["val"].shape[0]) if user.args[0].name in targets else 2)
            elif name in _SAME_VALUES:
                pending.append(user)
    if rows:
        return 0, max(min(rows), 1)
    return (1, 2) if node.name.endswith("mask") else (0, 2)


def _sample_shape(name: str, traced: tuple[Any, ...], given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Returns the shape of one sample; the program may leave sizes open, the user may not contradict it."""
    if given is None:
        if any(not isinstance(size, int) for size in traced):
            raise ModelError(f"the model leaves the size of input {name!r} open; state the sample shape")
        return traced
    given = tuple(given)
    fits = len(given) == len(traced) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(traced, given, strict=True)
    )
    if not fits:
        sizes = tuple(size if isinstance(size, int) else "any" for size in traced)
        raise ModelError(f"the model's input {name!r} has sample shape {sizes}, got {given}")
    return given


def is_data(spec: InputSpec) -> bool:
    """Says whether an input of the program is a tensor from the user, not a weight or a plain number."""
    return spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)


def kept_names(program: ExportedProgram, edges: Edges) -> tuple[str, ...] | None:
    """Returns the names of the outputs that are tensors; None where nobody knows them."""
    specs = program.graph_signature.output_specs
    kept = [spec for spec in specs if spec.kind is OutputKind.USER_OUTPUT]
    names = edges.output_names or output_names(program)
    if names is None or len(names) != len(kept):
        return None
    return tuple(name for name, spec in zip(names, kept, strict=True) if not is_nothing(spec.arg))


def is_nothing(argument: Any) -> bool:
    """Says whether an output is `None`, as optional parts of a model's result are."""
    return isinstance(argument, ConstantArgument) and argument.value is None


def output_specs(
    module: fx.GraphModule, inputs: tuple[TensorSpec, ...], names: Sequence[str] | None = None
) -> tuple[TensorSpec, ...]:
    """Returns one spec per output, after a dry run with a batch size that the program was not exported for.

    Args:
        module: The lifted graph.
        inputs: Its inputs.
        names: The outputs' names; numbers where they are not known. A name that an input has already is changed.

    Raises:
        UnsupportedModelError: The graph does not run at that size, or an output's first dimension is not the batch.
    """
    try:
        shapes = propagate(module, inputs)
    except (DynamicOutputShapeException, DataDependentOutputException) as exc:
        raise UnsupportedModelError(
            f"the model uses {exc.func}, whose result depends on the data in its size; Shoal cannot edit that"
        ) from exc
    except (RuntimeError, ValueError, TypeError) as exc:
        raise UnsupportedModelError(
            f"the model runs at one batch size only ({reason(exc)}); export it with dynamic_shapes for dimension 0"
        ) from exc
    nodes = output_nodes(module)
    if names is None or len(names) != len(nodes):
        names = ["output"] if len(nodes) == 1 else [f"output_{index}" for index in range(len(nodes))]
    specs = []
    for name, node in zip(unique(names, [spec.name for spec in inputs]), nodes, strict=True):
        shape = shapes.per_sample(node.name)
        if shape is None:
            sizes = ["batch" if size == PROBE else size for size in shapes.full[node.name]]
            raise UnsupportedModelError(f"the first dimension of {name!r} is not the batch; its shape is {sizes}")
        specs.append(TensorSpec(name, shape, shapes.dtypes[node.name]))
    return tuple(specs)

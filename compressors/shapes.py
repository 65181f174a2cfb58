"""Shapes of every tensor in a graph, found without computing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from compressors.graph import TensorSpec

PROBE = 10007
"""Batch size of the dry run: a prime that no real dimension has, so that it can be told apart from every other size."""


@dataclass(frozen=True)
class Shapes:
    """Result of a dry run with batch size `PROBE`.

    Attributes:
        full: Node name to shape, for nodes that are tensors.
        dtypes: Node name to element type.
        carriers: Nodes that hold a tensor, or a tuple or list of tensors; the others hold sizes.
    """

    full: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    carriers: frozenset[str]

    def per_sample(self, node: str) -> tuple[int, ...] | None:
        """Returns the shape without the batch dimension, None where dimension 0 is not exactly the batch."""
        shape = self.full.get(node)
        if shape is None or not shape or shape[0] != PROBE or any(size % PROBE == 0 and size for size in shape[1:]):
            return None
        return shape[1:]


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps shapes only."""

    def __init__(self, module: fx.GraphModule, device: str) -> None:
        super().__init__(module)
        self.device = device
        self.full: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.carriers: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and n.op != "output":
            self.full[n.name] = tuple(result.shape)
            self.dtypes[n.name] = result.dtype
        items = result if isinstance(result, tuple | list) else [result]
        if any(isinstance(item, torch.Tensor) for item in items):
            self.carriers.add(n.name)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        return _on_meta(module, args, kwargs) if self.device == "meta" else module(*args, **kwargs)

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if self.device == "meta" else value


_known: WeakKeyDictionary[fx.GraphModule, dict[Any, Shapes]] = WeakKeyDictionary()
"""Results by module, for one code of it: surgery asks for the same graph many times."""


def propagate(module: fx.GraphModule, inputs: Sequence[TensorSpec]) -> Shapes:
    """Returns the shape of every tensor in `module` for inputs of batch size `PROBE`.

    Raises:
        RuntimeError: The graph does not run at this batch size (torch's own error, for the caller to explain).
    """
    results = _known.setdefault(module, {})
    key = (module.code, tuple(inputs))
    if key not in results:
        results.clear()
        results[key] = _dry_run(module, inputs)
    return results[key]


def _dry_run(module: fx.GraphModule, inputs: Sequence[TensorSpec]) -> Shapes:
    """Runs on the meta device; where the graph makes tensors on another one, in the slower mode that allows that."""
    recorder = _Recorder(module, "meta")
    try:
        with torch.no_grad():
            recorder.run(*_samples(inputs, "meta"))
    except (RuntimeError, NotImplementedError):
        recorder = _Recorder(module, "cpu")
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            recorder.run(*_samples(inputs, "cpu"))
    return Shapes(recorder.full, recorder.dtypes, frozenset(recorder.carriers))


def _on_meta(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = chain(module.named_parameters(), module.named_buffers())
    return functional_call(module, {name: value.to("meta") for name, value in tensors}, args, kwargs)


def output_shape(module: nn.Module, inputs: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> tuple[int, ...]:
    """Returns the full shape of a module's output for inputs of these full shapes and types, without computing it."""
    samples = tuple(torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in inputs)
    with torch.no_grad():
        return tuple(_on_meta(module, samples, {}).shape)


def remember(module: fx.GraphModule, inputs: Sequence[TensorSpec], known: Shapes) -> None:
    """Notes that the nodes of `module` have the shapes in `known`, which may list others too; saves a dry run."""
    names = {node.name for node in module.graph.nodes}
    shapes = Shapes(
        {name: shape for name, shape in known.full.items() if name in names},
        {name: dtype for name, dtype in known.dtypes.items() if name in names},
        known.carriers & names,
    )
    _known[module] = {(module.code, tuple(inputs)): shapes}


def _samples(inputs: Sequence[TensorSpec], device: str) -> list[torch.Tensor]:
    return [torch.empty((PROBE, *spec.shape), dtype=spec.dtype, device=device) for spec in inputs]


def output_nodes(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Returns the nodes that a graph returns, in order."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    value: Any = output.args[0]
    return value if isinstance(value, tuple) else (value,)


def convolution_padding(size_in: int, size_out: int, kernel: int, stride: int) -> int | None:
    """Returns the padding, at most half the kernel, that turns `size_in` into `size_out`; None if there is none."""
    for padding in range(kernel // 2, -1, -1):
        if size_in + 2 * padding >= kernel and (size_in + 2 * padding - kernel) // stride + 1 == size_out:
            return padding
    return None

"""An ONNX model as an `nn.Module`: stored tensors are its weights, `forward` goes through the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import nn

from compressors.errors import EngineError, ModelError, UnsupportedModelError, reason
from compressors.sources.onnx.host import run_host
from compressors.sources.onnx.model import Node, OnnxModel
from compressors.sources.onnx.names import tensor_paths
from compressors.sources.onnx.operators import OPERATORS
from compressors.sources.onnx.values import Call, Value, hint, stored

_WEIGHTS = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")


@final
class Scope(nn.Module):
    """A module of the original network: what runs in it is traced under its path."""

    def forward(self, function: Callable[[], Any]) -> Any:
        """Returns what the function returns."""
        return function()


_ROOT = Scope().forward


@final
class Network(nn.Module):
    """The whole model.

    Args:
        model: Checked, and made ready by `prepare`.
    """

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self._model = model
        self._paths = tensor_paths(model)
        self._host = {name: stored(tensor) for name, tensor in model.tensors.items()}
        for name, tensor in model.tensors.items():
            self._register(self._paths[name], tensor, learned=name not in model.literals)
        places = {node.scope: self._scope(node.scope) for node in model.nodes}
        self._scopes = {scope: module for scope, module in places.items() if isinstance(module, Scope)}
        self._last_use = _last_uses(model)
        self.eval()

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the model's outputs.

        Args:
            inputs: In the model's order; their names become those of the program's inputs.

        Raises:
            ModelError: An operator does not fit its inputs.
            UnsupportedModelError: An operator cannot be computed exactly.
        """
        values = {name: self._stored(name) for name in self._model.tensors}
        values |= {item.name: Value(x) for item, x in zip(self._model.inputs, inputs.values(), strict=True)}
        self._run(self._model.nodes, values, self._last_use)
        return tuple(values[name].as_tensor() for name in self._model.outputs)

    def _stored(self, name: str) -> Value:
        path = self._paths[name]
        owner, _, leaf = path.rpartition(".")
        return Value(getattr(self.get_submodule(owner), leaf), self._host[name], constant=True)

    def _run(self, nodes: Iterable[Node], values: dict[str, Value], last: Mapping[int, list[str]]) -> None:
        for index, node in enumerate(nodes):
            if node.op == "If":
                self._branch(node, values)
            else:
                values.update(self._scopes.get(node.scope, _ROOT)(partial(_compute, node, values)))
            for name in last.get(index, ()):
                values.pop(name, None)

    def _branch(self, node: Node, values: dict[str, Value]) -> None:
        """Runs the branch of an If whose condition is known."""
        condition = Call(node, [values[node.inputs[0]]])
        if condition.value(0).host is None:
            raise condition.refuse("which branch runs depends on the model's inputs; export the model without it")
        body = node.attributes["then_branch" if bool(condition.number(0)) else "else_branch"]
        inner = dict(values)
        self._run(body.nodes, inner, {})
        values.update({name: inner[result] for name, result in zip(node.outputs, body.outputs, strict=False) if name})

    def _register(self, path: str, tensor: torch.Tensor, *, learned: bool) -> None:
        """Stores a tensor under its path, as a parameter where it could be one."""
        owner, _, leaf = path.rpartition(".")
        module = self._scope(owner) if owner else self
        trained = learned and tensor.is_floating_point() and tensor.dim() > 0 and leaf not in _STATISTICS
        # A mask may hold minus infinity; a weight that does is left for the check of the finished program to refuse.
        if trained and (leaf in _WEIGHTS or not bool(torch.isinf(tensor).any())):
            module.register_parameter(leaf, nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)

    def _scope(self, path: str) -> nn.Module:
        """Returns the module at a path, made where it is missing; where a tensor is in the way, the one above."""
        module: nn.Module = self
        for part in filter(None, path.split(".")):
            children = dict(module.named_children())
            if part not in children:
                if hasattr(module, part):
                    break
                module.add_module(part, Scope())
                children = dict(module.named_children())
            module = children[part]
        return module


def _last_uses(model: OnnxModel) -> dict[int, list[str]]:
    """Returns the values that nobody reads after each operator."""
    from compressors.sources.onnx.order import reads

    last = {name: index for index, node in enumerate(model.nodes) for name in reads(node)}
    freed: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in model.outputs:
            freed.setdefault(index, []).append(name)
    return freed


def _compute(node: Node, values: Mapping[str, Value]) -> dict[str, Value]:
    """Returns an operator's results by name.

    Raises:
        ModelError: It does not fit its inputs.
    """
    call = Call(node, [values[name] if name else None for name in node.inputs])
    constant = all(value is None or value.constant or value.tensor is None for value in call.values)
    try:
        results = run_host(call)
        if results is None:
            results = OPERATORS[node.op](call)
    except EngineError:
        raise
    except (IndexError, KeyError, ValueError, TypeError, RuntimeError, ArithmeticError, AttributeError) as exc:
        raise _misfit(call, exc) from exc
    results = results if isinstance(results, list) else [results]
    made: dict[str, Value] = {}
    for name, result in zip(node.outputs, results, strict=False):
        if name:
            made[name] = _value(call, result, constant=constant)
    missing = [name for name in node.outputs[len(results) :] if name]
    if missing:
        raise UnsupportedModelError(f"{node.label} cannot be imported: its further result {missing[0]!r} is used")
    return made


def _value(call: Call, result: Any, *, constant: bool) -> Value:
    if isinstance(result, np.ndarray | np.generic):
        from compressors.sources.onnx.values import normal

        return Value(host=normal(result), constant=True)
    call.check_size(result.shape, constant=constant)
    return Value(result, constant=constant)


def _misfit(call: Call, exc: Exception) -> ModelError:
    """Returns the error that names the operator and what it got."""
    got = []
    for value in call.values:
        if value is None:
            got.append("nothing")
        elif value.tensor is not None:
            sizes = [hint(size) for size in value.tensor.shape]
            got.append(f"{str(value.tensor.dtype).removeprefix('torch.')}{sizes}")
        else:
            got.append(f"numbers{list(value.host.shape)}")
    return ModelError(f"{call.node.label} does not fit its inputs ({', '.join(got)}): {reason(exc)}")

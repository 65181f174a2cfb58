"""Names and places: where lifted modules and tensors go in the new module tree."""

from __future__ import annotations

import re
from typing import final

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from compressors.modules import NORMS, OPERATORS, Arguments, Constant, activation_kind


@final
class Placer:
    """Builds the module tree of a lifted graph under the names of the original model."""

    def __init__(self, program: ExportedProgram) -> None:
        self.root = nn.Module()
        self.placed: dict[str, nn.Module] = {}
        self.numbers: dict[str, int] = {}
        self.around_calls = {name for node in program.graph.nodes for path in _stack(node) for name in _around(path)}
        self.around_weights = {name for path in program.state_dict for name in _around(path)}
        self.aliases: dict[int, list[str]] = {}
        for name, value in program.state_dict.items():
            self.aliases.setdefault(id(value), []).append(name)

    def module(self, node: fx.Node, module: nn.Module, arguments: Arguments) -> str:
        """Places a module and returns its name; the same operator with the same weights is placed once.

        Args:
            node: The call in the program.
            module: What it became.
            arguments: The call's arguments by schema name.
        """
        name = wanted = self._wanted(node, module, arguments)
        weighted = next(module.parameters(), None) is not None
        count = 0 if weighted else self.numbers.get(wanted, 0)
        while _taken(self.root, name) or name in self.placed:
            if weighted and name in self.placed and _same(self.placed[name], module):
                return name
            count += 1
            name = f"{wanted}_{count}"
        self.numbers[wanted] = count
        self.placed[name] = module
        _attach(self.root, name, module)
        return name

    def tensor(self, constant: Constant, number: int, reader: str) -> str:
        """Places a parameter or buffer and returns its name; a computed one gets a numbered name."""
        name = wanted = self._name(constant, reader) or f"folded_{number}"
        count = 0
        while name in self.placed or _taken(self.root, name):
            count += 1
            name = f"{wanted}_{count}"
        _attach(self.root, name, constant.value)
        return name

    def _name(self, constant: Constant, reader: str) -> str:
        """Returns a tensor's name; of the names of a tied one, that in the module which reads it."""
        names = self.aliases.get(id(constant.value), ())
        return next((name for name in names if name.rpartition(".")[0] == reader), constant.fqn)

    def _wanted(self, node: fx.Node, module: nn.Module, arguments: Arguments) -> str:
        """Returns the original module's name: from its weight's, else from the module that the call was made in."""
        weight = arguments.get("weight") or arguments.get("running_mean")
        kind = activation_kind(module) or type(module).__name__.lower()
        path = path_of(node)
        if isinstance(weight, Constant) and weight.fqn:
            return re.sub(r"(^|[._])(weight|running_mean)$", "", self._name(weight, path)) or kind
        alone = isinstance(module, (*OPERATORS, *NORMS)) or path not in self.around_weights
        if path and alone and path not in self.around_calls:
            return path
        return f"{path}.{kind}" if path else kind


def path_of(node: fx.Node) -> str:
    """Returns the dotted name of the module that a call of the program was made in; empty at the top."""
    stack = _stack(node)
    return stack[-1] if stack else ""


def _stack(node: fx.Node) -> list[str]:
    """Returns the module paths that the call was made in, outermost first; a repeated call has `@1` after its path."""
    stack = node.meta.get("nn_module_stack") or {}
    return [re.sub(r"@\d+", "", entry[0]) for entry in stack.values() if not entry[0].startswith("_empty_nn_module")]


def _around(path: str) -> list[str]:
    """Returns `a` and `a.b` for `a.b.c`."""
    return [path[:index] for index, character in enumerate(path) if character == "."]


def _same(left: nn.Module, right: nn.Module) -> bool:
    """Says whether two modules are one: the same settings and the same weight objects."""
    if repr(left) != repr(right):
        return False
    return all(a is b for a, b in zip(left.parameters(), right.parameters(), strict=True))


def _taken(root: nn.Module, name: str) -> bool:
    """Says whether something other than a module, such as a tensor or a method of modules, has a dotted name."""
    parent, _, leaf = name.rpartition(".")
    try:
        holder = root.get_submodule(parent)
    except AttributeError:
        return False
    return hasattr(holder, leaf) and not isinstance(getattr(holder, leaf), nn.Module)


def _attach(root: nn.Module, name: str, value: nn.Module | torch.Tensor) -> None:
    """Adds a module, parameter or buffer under a dotted name, with empty modules on the way."""
    *parents, leaf = name.split(".")
    for parent in parents:
        try:
            root = root.get_submodule(parent)
        except AttributeError:
            root.add_module(parent, nn.Module())
            root = root.get_submodule(parent)
    if isinstance(value, nn.Module):
        _move(dict(root.named_children()).get(leaf), value)
        root.add_module(leaf, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value.detach())


def _move(before: nn.Module | None, after: nn.Module) -> None:
    """Gives a module what was placed under its name before it came: tensors that functions read, and modules."""
    if before is None:
        return
    for name, child in before.named_children():
        after.add_module(name, child)
    for name, parameter in before.named_parameters(recurse=False):
        if name not in dict(after.named_parameters(recurse=False)):
            after.register_parameter(name, parameter)
    for name, buffer in before.named_buffers(recurse=False):
        if name not in dict(after.named_buffers(recurse=False)):
            after.register_buffer(name, buffer)

"""Plans made real: structural surgery on a copy of the graph. The weights of what is put in are the fitter's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import fx, nn

from compressors.analysis.flow import main_region
from compressors.channel_line import Line
from compressors.errors import ModelError, OptionError, SurgeryError
from compressors.graph import Graph
from compressors.plan import Step
from compressors.shapes import Shapes, convolution_padding, output_shape, propagate, remember
from compressors.surgery.unmerged import unmerged
from compressors.tidy import tidy

_KINDS: dict[int, tuple[Any, Any]] = {
    1: (nn.Conv1d, nn.BatchNorm1d),
    2: (nn.Conv2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.BatchNorm3d),
}


def apply(graph: Graph, steps: Sequence[Step], lines: Mapping[str, Line] | None = None) -> Graph:
    """Returns a new graph in which every step's stretch is replaced; the given graph is not changed.

    A "remove" step passes its entry on. A "regress" step puts two modules there, `<cut>.conv` and `<cut>.norm` (a batch
    norm that changes nothing yet), or one `<cut>.linear`; `<cut>` is `cut_name(step)`. New weights are zero: the
    stretch gives 0 until it is fitted. A "merge" step puts `<cut>.stretch` there: its operators as they were, with
    lines for its activations, which `merge` turns into one operator, and behind it, where the step has a norm, a group
    norm `<cut>.norm` with gain 1 and shift 0, which stays. Everything that nothing reads any more is deleted.

    Args:
        graph: The original.
        steps: What to do; no two overlap.
        lines: What takes the place of the sites of "merge" steps, by node; nothing where there is none.

    Raises:
        OptionError: A step names an unknown node, overlaps another, or its kernel or stride does not fit.
        ModelError: A removed stretch changes the shape of its tensor.
        SurgeryError: A new operator does not give the shape that it replaces (our fault).
    """
    surgeon = _Surgeon(graph, lines or {})
    for step in steps:
        surgeon.check(step)
    for step in steps:
        surgeon.cut(step)
    return surgeon.close()


def cut_name(step: Step) -> str:
    """Returns the name of the module that a "regress" step adds; unique within a plan, as every exit is."""
    return f"cut_{step.exit}"


@final
class _Surgeon:
    """One operation on one copy."""

    def __init__(self, graph: Graph, lines: Mapping[str, Line]) -> None:
        self.original = graph
        self.lines = lines
        self.shapes: Shapes = propagate(graph.module, graph.inputs)
        self.copy = graph.copied()
        self.module = self.copy.module
        self.nodes = {node.name: node for node in self.module.graph.nodes}
        self.region = main_region(self.module, self.shapes)
        self.full = dict(self.shapes.full)
        self.dtypes = dict(self.shapes.dtypes)
        self.owners: dict[fx.Node, Step] = {}
        self.became: dict[fx.Node, fx.Node] = {}

    def check(self, step: Step) -> None:
        """Refuses a step that names what is not there, or that touches what another step replaces."""
        for name in (step.entry, step.exit):
            if name not in self.nodes or self.shapes.per_sample(name) is None:
                raise OptionError(
                    "plan", f"step {step.label!r} names {name!r}, which is no tensor of {self.original.name!r}"
                )
        entry, exit_ = self.nodes[step.entry], self.nodes[step.exit]
        inside = self._inside(entry, exit_)
        if not inside:
            raise OptionError("plan", f"step {step.label!r} does not lead from {step.entry!r} forward to {step.exit!r}")
        for node in inside:
            if node in self.owners:
                raise OptionError(
                    "plan", f"steps {self.owners[node].label!r} and {step.label!r} both replace {node.name!r}"
                )
            self.owners[node] = step
        before, after = (self.shapes.per_sample(name) for name in (step.entry, step.exit))
        if step.kind == "remove" and before != after:
            raise ModelError(
                f"step {step.label!r} cannot remove the stretch: its input has shape {before}, its output {after}; "
                "they must be equal"
            )

    def _inside(self, entry: fx.Node, exit_: fx.Node) -> list[fx.Node]:
        """Returns the data nodes after `entry` up to `exit_` that lie on a path between them."""
        forward = {entry}
        for node in self.region.nodes:
            if any(source in forward for source in node.all_input_nodes):
                forward.add(node)
        backward = {exit_}
        for node in reversed(self.region.nodes):
            if any(user in backward for user in node.users):
                backward.add(node)
        return [node for node in self.region.nodes if node in forward and node in backward and node is not entry]

    def cut(self, step: Step) -> None:
        """Replaces one stretch."""
        exit_ = self.nodes[step.exit]
        node = self._current(self.nodes[step.entry])
        if step.kind == "merge":
            stretch = unmerged(self.original, step, self.lines)
            sides = [self._current(self.nodes[spec.name]) for spec in stretch.specs[1:]]
            node = self._insert(exit_, (node, *sides), f"{cut_name(step)}.stretch", stretch)
            if step.norm:
                node = self._insert(exit_, (node,), f"{cut_name(step)}.norm", self._norm(step))
        if step.kind == "regress":
            for name, module in self._operator(step).items():
                node = self._insert(exit_, (node,), f"{cut_name(step)}.{name}", module)
        if step.kind != "remove" and self.full[node.name] != self.full[step.exit]:
            raise SurgeryError(
                f"step {step.label!r} gives shape {self.full[node.name]} instead of {self.full[step.exit]}"
            )
        exit_.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
        self.became[exit_] = node

    def _insert(self, after: fx.Node, sources: tuple[fx.Node, ...], target: str, module: nn.Module) -> fx.Node:
        """Adds a call of a new module on `sources`, and notes the shape of its output."""
        if not self.module.add_submodule(target, module.eval()):
            raise OptionError(
                "plan", f"the graph has a module {target!r} already; a plan is applied to its source only"
            )
        with self.module.graph.inserting_after(max(after, *sources)):
            node = self.module.graph.call_module(target, sources)
        self.full[node.name] = output_shape(module, [(self.full[s.name], self.dtypes[s.name]) for s in sources])
        self.dtypes[node.name] = self.dtypes[after.name]
        return node

    def _current(self, node: fx.Node) -> fx.Node:
        """Returns what stands for a node now: an earlier step may have replaced it."""
        while node in self.became:
            node = self.became[node]
        return node

    def _operator(self, step: Step) -> dict[str, nn.Module]:
        """Returns the modules that a "regress" step puts in, by name and in order; weights zero."""
        size_in, size_out = (self.shapes.per_sample(name) for name in (step.entry, step.exit))
        assert size_in is not None
        assert size_out is not None
        dtype = self.dtypes[step.exit]
        if not step.kernel:
            if size_in[:-1] != size_out[:-1]:
                raise OptionError("plan", f"step {step.label!r}: no linear layer turns shape {size_in} into {size_out}")
            return {"linear": _zeroed(nn.Linear(size_in[-1], size_out[-1], dtype=dtype))}
        padding = _paddings(step, size_in, size_out)
        convolution, norm = _KINDS[len(step.kernel)]
        return {
            "conv": _zeroed(convolution(size_in[0], size_out[0], step.kernel, step.stride, padding, dtype=dtype)),
            "norm": _identity_norm(norm(size_out[0], dtype=dtype)),
        }

    def _norm(self, step: Step) -> nn.Module:
        """Returns the norm behind a merge."""
        size = self.shapes.per_sample(step.exit)
        if not size or len(size) == 1 or size[0] % step.norm:
            raise OptionError(
                "plan", f"step {step.label!r}: no group norm of {step.norm} groups fits tensors of shape {size}"
            )
        return nn.GroupNorm(step.norm, size[0], dtype=self.dtypes[step.exit])

    def close(self) -> Graph:
        """Cleans up and returns the result.

        Every tensor that took another's place has its shape, so that all tensors behind it keep theirs.
        """
        tidy(self.module)
        remember(self.module, self.original.inputs, Shapes(self.full, self.dtypes, self._carriers()))
        return self.copy

    def _carriers(self) -> frozenset[str]:
        return self.shapes.carriers | self.full.keys()


def _zeroed(module: nn.Module) -> nn.Module:
    """Returns the module with all parameters zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


def _identity_norm(norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    """Returns the norm with a scale that cancels its epsilon, so that it passes its input on."""
    with torch.no_grad():
        norm.weight.fill_(math.sqrt(1 + norm.eps))
    return norm


def _paddings(step: Step, size_in: tuple[int, ...], size_out: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the padding per axis that gives the stretch's output size."""
    axes = len(step.kernel)
    if not (len(step.stride) == axes == len(size_in) - 1 == len(size_out) - 1) or axes not in _KINDS:
        raise OptionError(
            "plan",
            f"step {step.label!r}: kernel {step.kernel} and stride {step.stride} do not fit tensors of shape {size_in}",
        )
    found = []
    for before, after, kernel, stride in zip(size_in[1:], size_out[1:], step.kernel, step.stride, strict=True):
        padding = convolution_padding(before, after, kernel, stride)
        if padding is None:
            raise OptionError(
                "plan", f"step {step.label!r}: no padding makes this convolution turn shape {size_in} into {size_out}"
            )
        found.append(padding)
    return tuple(found)

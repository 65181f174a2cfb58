"""Merge regions: single-entry single-exit stretches that become one affine map once their activations are gone.

A region starts where an operator reads the entry and ends behind an operator (its norm, and the add that closes its
residual block, belong to it). Everything in it is affine, or becomes so: activations turn into lines, norms that look
at the sample (layer and group norm) dissolve with them. Whatever else is in it refuses the region.

Which operators go (numbered as in the code):
1. An operator that changes neither channels nor size may go: the identity takes its place (with its norm and its
   activation), 0 where it was the whole branch of an add, so that x + x does not arise.
2. Operators fall into classes by kernel and whether they are depthwise. For every class, any number may be kept from
   what cannot go to all of them; at least one operator stays. Of a class, those with the largest sum of |weights| stay.
3. Each choice has one merged kernel. Of choices with the same kernel and the same depthwise-ness, the one that keeps
   the most operators is offered.
These are the rules of LayerMerge (2024), found from the graph instead of by hand.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any, final

import torch
from torch import fx, nn

from compressors import modules
from compressors.analysis import geometry
from compressors.analysis.geometry import Geometry, Padding
from compressors.analysis.kinds import Kind, function_name, module_of
from compressors.analysis.reach import Blocked, Labels, layout
from compressors.analysis.windows import average_pool_settings, pad_windows, paddings, slice_windows
from compressors.shapes import Shapes


@dataclass(frozen=True)
class MergeOption:
    """One way to turn a region into one operator.

    Attributes:
        kernel: Of the merged operator; empty for a linear.
        stride: Of the merged operator.
        groups: Of the merged operator; as many as channels: depthwise.
        pruned: Operator nodes that go.
        padding: What makes the merge exact.
        macs: Multiply-accumulates of the merged operator, per sample.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    pruned: tuple[str, ...]
    padding: Padding
    macs: int


@dataclass(frozen=True)
class MergeRegion:
    """A stretch that can become one operator.

    Attributes:
        name: Module path that it covers, for people.
        chain: Name of its chain.
        start: Index of the entry position.
        end: Index of the exit position.
        entry: Node whose output is its only input.
        exit: Node whose output is its only output.
        nodes: All nodes inside, `exit` included, in topological order.
        sites: Activation nodes inside, which turn into lines.
        norms: Layer and group norms inside, which dissolve.
        operators: Convolution and linear nodes inside.
        macs: Multiply-accumulates as it is, per sample.
        input_shape: Per sample.
        output_shape: Per sample.
        options: By growing kernel.
        norm_groups: Of the group norm that may stand behind the operator (`compressors.analysis.normback`); 0: none.
    """

    name: str
    chain: str
    start: int
    end: int
    entry: str
    exit: str
    nodes: tuple[str, ...]
    sites: tuple[str, ...]
    norms: tuple[str, ...]
    operators: tuple[str, ...]
    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    options: tuple[MergeOption, ...]
    norm_groups: int = 0

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to merge: one operator, no activation, no norm that dissolves."""
        return not self.sites and not self.norms and len(self.operators) < 2


@dataclass(frozen=True)
class Options:
    """How many options are offered.

    Attributes:
        kernel: Largest merged kernel.
        strided_growth: Whether the kernel may grow behind a strided operator, which multiplies the growth by its
            stride; if not, no region holds such a pair, pruned or not (LayerMerge's rule).
    """

    kernel: int = 7
    strided_growth: bool = True


def merge_options(
    kinds: Mapping[fx.Node, Kind], entry: fx.Node, shapes: Shapes, sides: Container[fx.Node], options: Options
) -> tuple[MergeOption, ...] | Blocked:
    """Returns the ways to turn a stretch into one operator, or why there is none.

    Args:
        kinds: The nodes of the stretch in topological order, exit last, and what each is.
        entry: Its only input.
        shapes: Of the whole graph.
        sides: What side inputs alone decide.
        options: What to offer.
    """
    for node, kind in kinds.items():
        if kind not in _ALLOWED:
            return Blocked("not-affine", f"holds something that is not affine ({_what(node)})")
    labels = layout(kinds, entry, shapes)
    if isinstance(labels, Blocked):
        return labels
    try:
        return tuple(_Composer(kinds, entry, shapes, sides, labels).options(options))
    except _NotAffineError as exc:
        return Blocked("not-affine", str(exc))


def region_macs(kinds: Mapping[fx.Node, Kind], shapes: Shapes) -> int:
    """Returns the multiply-accumulates of a stretch's operators, per sample."""
    return sum(
        math.prod(shapes.full[node.name][1:]) * _weight(node)[0].numel()
        for node, kind in kinds.items()
        if kind is Kind.OPERATOR
    )


def _weight(node: fx.Node) -> torch.Tensor:
    weight: torch.Tensor = getattr(module_of(node), "weight")  # noqa: B009 - its type is not known to torch
    return weight.detach()


_ALLOWED = {
    Kind.OPERATOR, Kind.NORM, Kind.LINE, Kind.ACTIVATION, Kind.ADD, Kind.MULTIPLY, Kind.PERMUTE, Kind.RESHAPE,
    Kind.AVERAGE_POOL, Kind.CONCAT, Kind.SLICE, Kind.PAD,
}  # fmt: skip


_WINDOWS = {Kind.OPERATOR, Kind.AVERAGE_POOL, Kind.SLICE, Kind.PAD}
"""What reads a window of its input."""


class _NotAffineError(Exception):
    """The end of a sentence that starts with the stretch."""


def _what(node: fx.Node) -> str:
    return f"{node.target!r}" if node.op == "call_module" else f"{function_name(node)!r}"


@final
class _Composer:
    """Composes the geometry of one stretch, for one choice of operators after another."""

    def __init__(
        self,
        kinds: Mapping[fx.Node, Kind],
        entry: fx.Node,
        shapes: Shapes,
        sides: Container[fx.Node],
        labels: Labels,
    ) -> None:
        self.kinds = kinds
        self.sides = sides
        self.entry = entry
        self.shapes = shapes
        self.labels = labels
        self.exit = list(kinds)[-1]
        self.operators = [node for node, kind in kinds.items() if kind is Kind.OPERATOR]
        self.reads = _reads(kinds, entry)
        self.known: dict[fx.Node, Geometry] = {}
        self.spatial = labels[entry][-1] != "C"
        self.axes = len(labels[entry]) - 2 if self.spatial else 0

    def options(self, wanted: Options) -> Iterator[MergeOption]:
        """Yields one option per merged kernel, smallest first (cases 2 and 3)."""
        if not wanted.strided_growth and self._grows_behind_stride():
            raise _NotAffineError("has a kernel behind a strided operator, which would grow by the stride")
        best: dict[tuple[tuple[int, ...], bool], frozenset[fx.Node]] = {}
        for pruned in self._choices(wanted.kernel):
            composed = self._compose(pruned, None)
            if max(composed.kernel, default=1) > wanted.kernel:
                continue
            key = (composed.kernel, composed.groups == self._channels(self.exit) > 1)
            if key not in best or len(pruned) <= len(best[key]):
                best[key] = pruned
        for key in sorted(best):
            yield self._option(self._compose(best[key], self._sizes(self.entry)), best[key])

    def _choices(self, largest: int) -> Iterator[frozenset[fx.Node]]:
        """Yields what may be pruned together, most first (case 2)."""
        classes: dict[Any, list[fx.Node]] = defaultdict(list)
        for node in self.operators:
            if self._reducible(node):
                module = module_of(node)
                kernel = getattr(module, "kernel_size", ())
                classes[kernel, getattr(module, "groups", 1) == len(_weight(node))].append(node)
        ranked = {key: sorted(nodes, key=_magnitude) for key, nodes in classes.items()}
        counts = [_counts(len(nodes), max(kernel, default=1), largest) for (kernel, _), nodes in ranked.items()]
        for chosen in product(*counts):
            pruned = frozenset(node for nodes, n in zip(ranked.values(), chosen, strict=True) for node in nodes[:n])
            if len(pruned) < len(self.operators):
                yield pruned

    def _reducible(self, node: fx.Node) -> bool:
        """Case 1."""
        module = module_of(node)
        source: Any = node.args[0]
        if self.shapes.full[source.name] != self.shapes.full[node.name]:
            return False
        strides: tuple[int, ...] = getattr(module, "stride", (1,))
        return max(strides, default=1) == 1

    def _grows_behind_stride(self) -> bool:
        """Says whether a kernel larger than one follows a strided operator."""
        strided: set[fx.Node] = set()
        for node, kind in self.kinds.items():
            behind = any(source in strided for source in node.all_input_nodes)
            own = self._own(node) if kind in _WINDOWS else None
            if behind and own is not None and any(own.extent):
                return True
            if behind or (own is not None and max(own.stride, default=1) > 1):
                strided.add(node)
        return False

    def _compose(self, pruned: frozenset[fx.Node], size: tuple[int, ...] | None) -> Geometry:
        """Returns the composed geometry, with what makes it exact at an input's size where that is given."""
        found = {self.entry: geometry.start(self._channels(self.entry), self.axes)}
        gone = set(pruned)
        for node, sources in self.reads.items():
            kind = self.kinds[node]
            one = found[sources[0]]
            if kind in _WINDOWS and node not in pruned:
                one = geometry.after(one, self._own(node), size)
            elif kind in {Kind.NORM, Kind.LINE, Kind.ACTIVATION}:
                if sources[0] in gone:
                    gone.add(node)
                elif not one.biased:
                    one = replace(one, biased=True)
            elif kind in {Kind.ADD, Kind.MULTIPLY}:
                one = self._joined(node, kind, [found[source] for source in sources])
            elif kind is Kind.CONCAT:
                one = replace(reduce(geometry.together, (found[source] for source in sources)), groups=1)
            found[node] = one
        return found[self.exit]

    def _joined(self, node: fx.Node, kind: Kind, operands: Sequence[Geometry]) -> Geometry:
        if len(operands) == 1:
            # x + x and x * x read one tensor twice.
            if kind is Kind.MULTIPLY and Counter(node.args)[node.args[0]] > 1:
                raise _NotAffineError(f"squares a tensor in {_what(node)}")
            sided = any(source in self.sides for source in node.all_input_nodes)
            if sided and (kind is Kind.MULTIPLY or not self._same_everywhere(node)):
                raise _NotAffineError(f"is scaled, or shifted by position, by another input in {_what(node)}")
            return replace(operands[0], biased=True, sided=operands[0].sided or sided)
        if kind is Kind.MULTIPLY:
            raise _NotAffineError(f"multiplies tensors that both depend on its input ({_what(node)})")
        if len({operand.stride for operand in operands}) > 1:
            raise _NotAffineError(f"adds tensors of different strides in {_what(node)}")
        return geometry.together(*operands)

    def _same_everywhere(self, node: fx.Node) -> bool:
        """Says whether what a side input adds is the same at every position: a time embedding."""
        shapes = [self.shapes.full[source.name] for source in node.all_input_nodes if source in self.sides]
        labels = self.labels[node]
        return all(
            len(shape) == len(labels) and all(n == 1 for n, label in zip(shape, labels, strict=True) if label[0] == "S")
            for shape in shapes
        )

    def _own(self, node: fx.Node) -> Geometry:
        """Returns the geometry of one node that reads a window."""
        if node not in self.known:
            self.known[node] = self._window(node)
        return self.known[node]

    def _window(self, node: fx.Node) -> Geometry:
        kind = self.kinds[node]
        if kind is not Kind.OPERATOR:
            return self._pool(node) if kind is Kind.AVERAGE_POOL else self._moved(node, kind)
        module = module_of(node)
        biased = module.bias is not None
        if isinstance(module, nn.Linear):
            return replace(geometry.start(1, self.axes), biased=biased)
        if getattr(module, "padding_mode", "zeros") != "zeros":
            raise _NotAffineError(f"pads with something else than zeros in {_what(node)}")
        assert isinstance(module, modules.CONVOLUTIONS)
        before, behind = paddings(module)
        extent = tuple(d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        return Geometry(before, behind, extent, module.stride, module.dilation, module.groups, biased)

    def _pool(self, node: fx.Node) -> Geometry:
        pool = average_pool_settings(node, self.axes)
        if pool is None:
            raise _NotAffineError(f"averages windows of different sizes in {_what(node)}")
        kernel, stride, padding = pool
        extent = tuple(k - 1 for k in kernel)
        channels = self._channels(node)
        return Geometry(padding, padding, extent, stride, (1,) * self.axes, channels)

    def _moved(self, node: fx.Node, kind: Kind) -> Geometry:
        """Returns the geometry of a slice or a pad of channels or positions."""
        labels = self.labels[node]
        nothing = geometry.start(self._channels(node), self.axes)
        windows = slice_windows(node, self.shapes) if kind is Kind.SLICE else pad_windows(node, len(labels))
        if windows is None:
            raise _NotAffineError(f"pads with something else than zeros, or picks single values, in {_what(node)}")
        before, behind, stride = ([0] * self.axes, [0] * self.axes, [1] * self.axes)
        for label, (first, last, step) in zip(labels, windows, strict=True):
            if (first, last, step) == (0, 0, 1):
                continue
            if label == "C":
                nothing = replace(nothing, groups=1)
            elif self.spatial and label[1:].isdigit():
                place = int(label[1:])
                before[place], behind[place], stride[place] = first, last, step
            else:
                raise _NotAffineError(f"cuts or adds positions in {_what(node)}")
        return replace(nothing, before=tuple(before), behind=tuple(behind), stride=tuple(stride))

    def _option(self, composed: Geometry, pruned: frozenset[fx.Node]) -> MergeOption:
        inputs = self._channels(self.entry)
        macs = math.prod(self.shapes.full[self.exit.name][1:]) * inputs // composed.groups * math.prod(composed.kernel)
        names = tuple(node.name for node in self.operators if node in pruned)
        return MergeOption(composed.kernel, composed.stride, composed.groups, names, composed.padding, macs)

    def _channels(self, node: fx.Node) -> int:
        return self.shapes.full[node.name][self.labels[node].index("C")]

    def _sizes(self, node: fx.Node) -> tuple[int, ...]:
        """Returns the sizes of the axes that a kernel slides over."""
        if not self.spatial:
            return ()
        return tuple(
            n for n, label in zip(self.shapes.full[node.name], self.labels[node], strict=True) if label[0] == "S"
        )


def _counts(total: int, kernel: int, largest: int) -> list[int]:
    """Returns how many operators of one class to prune: in a row, no more are kept than the largest kernel allows.

    Of operators with one tap, which no kernel grows by, all stay or all go; in parallel branches all may stay too.
    """
    kept = (largest - 1) // (kernel - 1) if kernel > 1 else 0
    return [total - n for n in range(total + 1) if n <= kept or n == total]


def _reads(kinds: Mapping[fx.Node, Kind], entry: fx.Node) -> dict[fx.Node, list[fx.Node]]:
    """Returns the nodes that depend on the entry, in order, and what of it each reads."""
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in kinds:
        sources = [source for source in node.all_input_nodes if source is entry or source in found]
        if sources:
            found[node] = sources
    return found


def _magnitude(node: fx.Node) -> float:
    """Returns the sum of |weights|: what is smallest goes first (LayerMerge's criterion)."""
    return float(_weight(node).abs().sum())

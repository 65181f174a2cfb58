"""Sites, chains and segments: what may be cut, and why the rest may not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """One activation call.

    Attributes:
        node: Node name in the graph.
        kind: `relu`, `relu6`, `gelu`, `silu`, `hardswish`, ...
        target: Module name, as in the original model where it had one.
        shape: Per-sample shape of its output.
    """

    node: str
    kind: str
    target: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Position:
    """A tensor that every path from its chain's start to its end goes through.

    A segment that ends here replaces `target` (before the activation) and keeps the activation; a segment that starts
    here reads `output` (after it). Without an activation the two are the same node.
    """

    target: str
    output: str


@dataclass(frozen=True)
class Chain:
    """Positions in order. The network's main chain has no parent; the others run inside one branch of a residual block.

    Attributes:
        name: `main`, or the module path of the branch.
        positions: At least two; the first is where the chain starts.
        parent: The name of the chain that this one lies inside, and the two neighbouring positions there; None for
            `main`.
    """

    name: str
    positions: tuple[Position, ...]
    parent: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class Segment:
    """A single-entry, single-exit stretch between two positions of one chain, with what may be put in its place.

    Attributes:
        name: Module path that the stretch covers, for people.
        chain: Name of its chain.
        start: Index of the entry position.
        end: Index of the exit position, > start.
        entry: Node whose output is its only input.
        exit: Node whose output is its only output.
        nodes: All nodes inside, `exit` included, in topological order.
        sites: Activation nodes inside, which go when it is replaced.
        operators: Convolution and linear nodes inside.
        input_shape: Per sample, e.g. (16, 32, 32), or (tokens, features).
        output_shape: Per sample.
        kernels: Spatial kernels worth regressing to, smallest first; () stands for a linear. Empty: none may be.
        stride: Spatial stride of a regressed convolution; empty for a linear.
        removable: Whether input may be passed straight to output.
        approximates: What a regressed operator cannot express, beyond the activations: `global-context` where the
            stretch looks at the whole input (squeeze-and-excitation, group norm).
    """

    name: str
    chain: str
    start: int
    end: int
    entry: str
    exit: str
    nodes: tuple[str, ...]
    sites: tuple[str, ...]
    operators: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    stride: tuple[int, ...]
    removable: bool
    approximates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Something that may not be cut, and why, in words that a user understands.

    Attributes:
        where: Module path or node name.
        reason: Full sentence.
        code: Short stable identifier, e.g. `crosses-attention`, `not-shape-preserving`.
    """

    where: str
    reason: str
    code: str


@dataclass(frozen=True)
class Analysis:
    """Everything that the analysis found."""

    sites: tuple[Site, ...]
    chains: tuple[Chain, ...]
    segments: tuple[Segment, ...]
    refusals: tuple[Refusal, ...]

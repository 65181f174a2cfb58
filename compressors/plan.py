"""What was decided: names and numbers only, JSON in and out, replayable on the same source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

StepKind = Literal["regress", "remove", "merge"]
Way = Literal["identity", "gaussian", "fitted"]
Padding = Literal["keep", "first"]


@dataclass(frozen=True)
class Step:
    """One cut: everything between two tensors is replaced by one operator, or by nothing.

    Attributes:
        kind: "regress" puts one convolution or linear there, fitted by least squares; "remove" passes the input on;
            "merge" turns activations into lines, so that what is there becomes one operator when it ships.
        entry: Node whose output is the segment's input.
        exit: Node whose output is replaced (a pre-activation tensor: the activation after it stays).
        kernel: Spatial kernel of the new convolution, e.g. (3, 3); empty for a linear and for "remove".
        stride: Spatial stride of the new convolution; empty for a linear and for "remove".
        sites: Of "merge": nodes of activations, and of norms that look at the sample, that turn into lines.
        pruned: Of "merge": nodes of operators that go, with their norm and activation.
        way: Of "merge": which lines (see `compressors.collapse`).
        padding: Of "merge": "first" moves all padding to the entry; "keep" leaves the network's function as it is.
        norm: Of "merge": groups of a new group norm behind the operator, in place of those that dissolved; 0 for none.
    """

    kind: StepKind
    entry: str
    exit: str
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    sites: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    way: Way = "identity"
    padding: Padding = "keep"
    norm: int = 0

    @property
    def label(self) -> str:
        """Short text for logs and reports, e.g. `regress 3x3 relu_2..add_1`."""
        size = "x".join(map(str, self.kernel)) + " " if self.kernel else ""
        behind = " + norm" if self.norm else ""
        return f"{self.kind} {size}{self.entry}..{self.exit}{behind}"


@dataclass(frozen=True)
class Plan:
    """The steps that turn a graph into a shallower one.

    Attributes:
        strategy: Which strategy decided.
        steps: Non-overlapping cuts, in topological order.
        refit: Whether later linear operators are refitted by least squares after the cuts.
        predicted_seconds: Latency that the plan is expected to reach, from the latency table.
        predicted_error: The strategy's own estimate of the harm (0 is none); comparable within one strategy only.
    """

    strategy: str
    steps: tuple[Step, ...]
    refit: bool = True
    predicted_seconds: float | None = None
    predicted_error: float | None = None

    def to_json(self) -> str:
        """Returns the plan as one JSON object with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Returns the plan that `to_json` wrote.

        Raises:
            ValueError: The text is no plan.
        """
        try:
            fields = json.loads(text)
            steps = tuple(Step(**{key: _frozen(value) for key, value in s.items()}) for s in fields.pop("steps"))
            return Plan(steps=steps, **fields)
        except (KeyError, TypeError, json.JSONDecodeError) as exc:
            raise ValueError(f"not a plan: {exc}") from exc


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value

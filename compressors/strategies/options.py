"""What may be set of each strategy. Nothing here needs the engine: a server checks options without loading it.

Every field has a description, bounds and a default; the base of each class holds what strategies of its kind share.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compressors.plan import Way


class Options(BaseModel):
    """Base of every strategy's options: immutable, and an unknown name is an error.

    Attributes:
        summary: What the strategy does, in one sentence for users.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    summary: ClassVar[str]


Given = TypeVar("Given", bound=Options)


def refuse_with_parity(options: Given, own: Collection[str], *, parity: bool) -> Given:
    """Returns the options if none was given that the paper's own procedure leaves no room for.

    Args:
        options: As given.
        own: Names of what only the default mode looks at.
        parity: Whether the paper's procedure is wanted.

    Raises:
        ValueError: One was given; pydantic makes its own error of it.
    """
    clash = sorted(options.model_fields_set & set(own)) if parity else []
    if clash:
        raise ValueError(f"parity=true follows the paper, which has no {', '.join(clash)}; leave out one or the other")
    return options


class SearchOptions(Options):
    """What all strategies but `auto` have in common."""

    way: Way = "fitted"
    """Which lines take the place of activations: the identity, the best by the weights, or the best by samples."""
    refit: Literal["none", "last", "all"] = "all"
    """What is refitted behind the cuts: nothing, the last operator of each block, or every operator."""
    calibration_samples: int = Field(default=2048, ge=1)
    """At most this many unlabelled samples for scores, lines and fits."""
    selection_samples: int = Field(default=1024, ge=1)
    """At most this many held-back samples for the choices."""
    comparisons: int = Field(default=64, ge=0, le=1000)
    """At most this many plans are made from what other plans taught, and judged as a whole, for each budget."""
    margin: float = Field(default=0.02, ge=0, lt=1)
    """Share of the budget that is kept free, so that noise does not break it."""


class RoundOptions(SearchOptions):
    """What the strategies that work in rounds have in common."""

    rounds: int = Field(default=1, ge=1, le=50)
    """How often activations are scored and taken out; in between the network is trained, which takes long to pay."""
    max_kernel: int = Field(default=7, ge=1, le=31)
    """Largest kernel of a merged convolution."""
    span: int = Field(default=8, ge=1, le=64)
    """Most positions of a chain that one merge covers."""
    regress: bool = True
    """Whether a stretch may become one fitted operator with a smaller kernel than its merge has."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans of the last round are compared."""


class LayerfitOptions(SearchOptions):
    """Options of `layerfit`."""

    summary: ClassVar[str] = (
        "Replaces stretches by one operator fitted in closed form, or by nothing, where the measured latency gains "
        "most and the network's decisions change least; refits what follows. Needs no labels."
    )

    regress: bool = True
    """Whether stretches may be replaced by one fitted operator."""
    remove: bool = True
    """Whether stretches may be removed without replacement."""
    merge: bool = True
    """Whether activations may be turned into lines, so that what they stood between becomes one operator."""
    max_kernel: int = Field(default=5, ge=1, le=15)
    """Largest kernel of a fitted convolution."""
    max_unknowns: int = Field(default=5000, ge=1, le=50_000)
    """Operators with more weights per output are not fitted: memory grows with the square, time with the cube."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans are fitted in full and compared."""
    refinements: int = Field(default=32, ge=0, le=512)
    """At most this many cuts are judged again with refitting, for each budget that is tried."""


class LayerMergeOptions(SearchOptions):
    """Options of `layer_merge`."""

    summary: ClassVar[str] = (
        "Takes out whole convolutions and turns activations into lines, so that what is left merges into fewer "
        "operators; a dynamic programme over measured latencies picks the combination (LayerMerge, 2024)."
    )

    prune: bool = True
    """Whether convolutions that change neither channels nor size may go."""
    regress: bool = True
    """Whether what is left of a stretch after pruning is fitted to it as one operator."""
    max_kernel: int = Field(default=7, ge=1, le=31)
    """Largest kernel of a merged convolution."""
    span: int = Field(default=8, ge=1, le=64)
    """Most positions of a chain that one merge covers."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans are fitted in full and compared."""
    refinements: int = Field(default=32, ge=0, le=512)
    """At most this many merges are judged again with refitting, for each budget that is tried."""
    parity: bool = False
    """Whether to do as the paper does: a short training for every merge, and times cut downwards."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self,
            {"prune", "regress", "way", "refit", "calibration_samples", "plans", "refinements", "comparisons"},
            parity=self.parity,
        )


class LayerFoldingOptions(RoundOptions):
    """Options of `layer_folding`."""

    summary: ClassVar[str] = (
        "Trains a gate at every activation towards a line, the harder the more its fold would save on the device, and "
        "folds the convolutions around those that give way (Layer Folding, 2022)."
    )

    penalty: float = Field(default=0.25, gt=0, le=100)
    """Weight of the penalty in the loss."""
    parity: bool = False
    """Whether to do as the paper does: gates from 0 to the identity, one training, and the threshold 0.9."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self,
            {"rounds", "way", "refit", "regress", "plans", "comparisons", "calibration_samples"},
            parity=self.parity,
        )


class LayerCollapseOptions(RoundOptions):
    """Options of `layer_collapse`."""

    summary: ClassVar[str] = (
        "Trains a gate at the activation of every MLP towards a line, and makes one linear layer of the two where it "
        "gives way and the device gains (LayerCollapse, 2023)."
    )

    penalty: float = Field(default=0.2, gt=0, le=100)
    """Weight of the penalty in the loss."""
    convolutions: bool = False
    """Whether convolutions collapse too."""
    parity: bool = False
    """Whether to do as the paper does: MLPs from the end, one training each, and a PReLU's slope within 0.05 of 1."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self,
            {"rounds", "way", "refit", "regress", "plans", "comparisons", "calibration_samples", "convolutions"},
            parity=self.parity,
        )


class EasierOptions(RoundOptions):
    """Options of `easier`."""

    summary: ClassVar[str] = (
        "Takes out activations whose inputs hardly ever change sign, where that lets operators merge and the device "
        "gains; trains in between (EASIER, 2024)."
    )

    parity: bool = False
    """Whether to do as the paper does: one activation at a time, the identity in its place, a training after each."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self, {"rounds", "way", "refit", "regress", "plans", "comparisons"}, parity=self.parity
        )


class TlcOptions(RoundOptions):
    """Options of `tlc`."""

    summary: ClassVar[str] = (
        "Turns every channel of an activation into a line or a constant by what its batch norm says, where a trial "
        "shows that the network can do without and the device gains (TLC, 2025)."
    )

    channels: Literal["binary", "fitted"] = "binary"
    """What becomes of a channel: passed on or made constant, as in the paper, or the line that fits best."""
    parity: bool = False
    """Whether to do as the paper does: trials on one batch, channels' weights masked, a training after each removal."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self,
            {"rounds", "way", "refit", "regress", "plans", "comparisons", "channels", "calibration_samples"},
            parity=self.parity,
        )


class AutoOptions(Options):
    """Options of `auto`."""

    summary: ClassVar[str] = (
        "Runs layerfit first and then the other strategies as far as the time goes, and takes the best network of all "
        "of them; never worse than layerfit."
    )

    max_kernel: int = Field(default=5, ge=1, le=15)
    """Largest kernel of a fitted or merged convolution."""
    calibration_samples: int = Field(default=2048, ge=1)
    """At most this many unlabelled samples for scores, lines and fits."""
    selection_samples: int = Field(default=1024, ge=1)
    """At most this many held-back samples for the choices."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans each strategy compares."""
    refinements: int = Field(default=32, ge=0, le=512)
    """At most this many cuts are judged again with refitting, for each budget and strategy."""
    comparisons: int = Field(default=64, ge=0, le=1000)
    """At most this many plans are made from what others taught, for each budget and strategy."""

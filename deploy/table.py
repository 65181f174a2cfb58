"""The latency table: seconds per operator, measured on the runtime, once per distinct signature."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from torch import nn

from deploy.bench import Bench, LocalBench
from deploy.cache import Context, LatencyCache
from deploy.export import InputSpec
from deploy.measure.distribution import Rounds, describe_times
from deploy.measure.settings import TimingSettings
from deploy.operators import Piece, write_pieces
from deploy.precision.pieces import write_in, write_pair_edges
from deploy.references import write_anchor, write_dispatch

_OPERATORS = TimingSettings(
    min_seconds=0.5,
    max_seconds=120.0,
    min_samples=20,
    min_rounds=20,
    warmup_seconds=0.2,
    block_seconds=0.002,
    precision=None,
    processes=1,
)
_NETWORKS = TimingSettings(
    min_seconds=1.0,
    max_seconds=60.0,
    min_samples=50,
    min_rounds=20,
    warmup_seconds=0.5,
    precision=None,
    processes=1,
)
_SECONDS_PER_NETWORK = 0.4
"""Processes differ by more than a second adds: six networks like a ResNet-20, timed four times, lay 0.3 % around their
means with a second each and with a third of it."""
_SECONDS_PER_TAIL = 1.0
"""Where a tail counts: few runs are in it."""
_LONG_CHAIN = 11
# In anchors, some nanoseconds: below what any operator takes, and above nothing.
_LEAST = 1e-4


class OperatorSpec(Protocol):
    """Something to time."""

    @property
    def key(self) -> str:
        """Signature without weights. Two operators with the same key have the same latency."""

    @property
    def module(self) -> nn.Module:
        """The operator, or a small graph of operators, in eval mode."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Its inputs, per sample."""


@dataclass(frozen=True)
class TableSettings:
    """Where and how latencies are taken.

    Attributes:
        batch: Samples per run.
        percentile: Percentile of whole networks; operators are compared by their medians.
        threads: Threads inside one operator.
        runtime: Registry name.
        precision: What the operators are written in, one of `deploy.precision.PRECISIONS`.
        seed: For random inputs and the order of turns.
    """

    batch: int = 1
    percentile: str = "p50"
    threads: int = 1
    runtime: str = "onnxruntime"
    precision: str = "float32"
    seed: int = 0


@dataclass(frozen=True)
class TableCounts:
    """Where the operators' latencies came from so far.

    Attributes:
        measured: Distinct operators that were measured.
        cached: Distinct operators that were known already, by call.
    """

    measured: int
    cached: int


class LatencyTable:
    """Times operators and whole networks for the engine. All seconds it returns are on one scale.

    A machine can be one and a half times slower a minute later, when others use it. So an anchor, always the same
    convolution, is timed in every round beside whatever is timed, and times are kept relative to it. They are returned
    in seconds at the speed that the machine had when this table was first asked.
    """

    def __init__(
        self,
        settings: TableSettings,
        cache: Path,
        scratch: Path | None = None,
        cancel: threading.Event | None = None,
        anchor: float | None = None,
        bench: Bench | None = None,
    ) -> None:
        """Opens the cache.

        Args:
            settings: Where and how.
            cache: The cache's file; it is made if it does not exist.
            scratch: Folder for model files on their way; the system's by default.
            cancel: Set it from another thread to stop a measurement.
            anchor: The `anchor` of a table that this one goes on from, so that both are on one scale.
            bench: The device; by default this machine with the settings' runtime.

        Raises:
            RuntimeMissingError: If the runtime is not installed there.
            CacheError: If the cache cannot be opened.
        """
        self._settings = settings
        self._cache = LatencyCache(cache)
        self._scratch = scratch
        self._cancel = cancel
        self._bench = bench or LocalBench(settings.runtime)
        facts = self._bench.facts()
        self._context = Context(
            facts.device.fingerprint,
            self._bench.runtime,
            facts.runtime_version,
            settings.precision,
            settings.threads,
            settings.batch,
        )
        self._anchor = anchor
        self._counts = TableCounts(0, 0)

    @property
    def counts(self) -> TableCounts:
        """Returns how many operators were measured, and how many were known."""
        return self._counts

    @property
    def anchor(self) -> float | None:
        """Returns the seconds of the anchor that all times are given by; None before the first."""
        return self._anchor

    def operators(self, operators: Sequence[OperatorSpec]) -> list[float]:
        """Returns seconds per operator, without what a model costs however small it is.

        Operators that the cache knows are not measured. All others are measured together, interleaved.

        Raises:
            ExportError: If an operator cannot be written as ONNX.
            MeasureError: If the timing process dies or hangs.
            MeasureCancelledError: If it was cancelled.
        """
        distinct = {operator.key: operator for operator in operators}
        known = self._cache.find(self._context, list(distinct))
        unknown = [operator for key, operator in distinct.items() if key not in known]
        if unknown:
            with TemporaryDirectory(dir=self._scratch) as folder:
                known |= self._measure_operators(unknown, Path(folder))
        self._counts = TableCounts(
            self._counts.measured + len(unknown), self._counts.cached + len(distinct) - len(unknown)
        )
        scale = self._scale()
        return [known[operator.key] * scale for operator in operators]

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[InputSpec, ...]]]) -> list[float]:
        """Returns seconds per whole network at the settings' percentile, all timed interleaved.

        Raises:
            ExportError: If a network cannot be written as ONNX.
            MeasureError: If the timing process dies or hangs.
            MeasureCancelledError: If it was cancelled.
        """
        if not networks:
            return []
        with TemporaryDirectory(dir=self._scratch) as name:
            folder = Path(name)
            pieces = [
                Piece(module, tuple(inputs), folder / f"network{index}.onnx")
                for index, (module, inputs) in enumerate(networks)
            ]
            self._write(pieces)
            anchor = write_anchor(folder / "anchor.onnx")
            each = _SECONDS_PER_NETWORK if self._settings.percentile == "p50" else _SECONDS_PER_TAIL
            settings = replace(_NETWORKS, min_seconds=each * len(networks))
            anchors, *times = self._time([anchor, *(piece.path for piece in pieces)], settings)
        self._remember({}, describe_times(anchors).p50)
        return [self._at_percentile(rounds, anchors) * self._scale() for rounds in times]

    def _measure_operators(self, operators: Sequence[OperatorSpec], folder: Path) -> dict[str, float]:
        pieces = [
            Piece(operator.module, tuple(operator.inputs), folder / f"operator{index}.onnx")
            for index, operator in enumerate(operators)
        ]
        edges = self._write(pieces, folder)
        references = [
            write_anchor(folder / "anchor.onnx"),
            write_dispatch(folder / "dispatch1.onnx", 1, self._settings.batch),
            write_dispatch(folder / "dispatch2.onnx", _LONG_CHAIN, self._settings.batch),
        ]
        paths = list(dict.fromkeys([*references, *(piece.path for piece in pieces), *filter(None, edges)]))
        rounds = self._time(paths, _OPERATORS)
        times = {path: _over(own, rounds[0]) for path, own in zip(paths, rounds, strict=True)}
        relative = {
            operator.key: _relative(times, piece.path, edge, references[1:])
            for operator, piece, edge in zip(operators, pieces, edges, strict=True)
        }
        self._remember(relative, describe_times(rounds[0]).p50)
        return relative

    def _write(self, pieces: Sequence[Piece], edges: Path | None = None) -> list[Path | None]:
        """Writes modules in the settings' precision; into the folder `edges`, where given, what their edges cost."""
        chosen, paths = self._settings, [piece.path for piece in pieces]
        write_pieces(pieces, chosen.batch)
        # What a runtime does at the edges it does to float32 files and, behind casts, to half-precision ones alike.
        found: list[Path | None] = [None] * len(paths)
        if edges is not None:
            found = self._bench.edges(paths, chosen.batch, edges)
        write_in(paths, chosen.precision, self._bench.runtime)
        if edges is None or chosen.precision != "int8":
            return found
        pairs = [self._write_pair_edges(path, edges) for path in paths]
        return [pair or own for pair, own in zip(pairs, found, strict=True)]

    def _write_pair_edges(self, path: Path, folder: Path) -> Path | None:
        partial = folder / "pairs.onnx"
        if not write_pair_edges(path, partial, self._bench.runtime):
            return None
        # Many operators have the same edges, and those are timed once.
        final = folder / f"pairs-{hashlib.sha256(partial.read_bytes()).hexdigest()}.onnx"
        return partial.replace(final)

    def _time(self, paths: Sequence[Path], settings: TimingSettings) -> list[Rounds]:
        chosen = self._settings
        settings = replace(
            settings,
            batch=chosen.batch,
            percentile=chosen.percentile,
            threads=chosen.threads,
            runtime=chosen.runtime,
            seed=chosen.seed,
        )
        answer = self._bench.time(paths, settings, self._cancel)
        return [timed["rounds"] for timed in answer["files"]]

    def _at_percentile(self, rounds: Rounds, anchors: Rounds) -> float:
        if self._settings.percentile == "p50":
            return _over(rounds, anchors)
        return describe_times(rounds).at(self._settings.percentile) / describe_times(anchors).p50

    def _remember(self, relative: Mapping[str, float], anchor: float) -> None:
        self._cache.store(self._context, relative, anchor)
        if self._anchor is None:
            self._anchor = anchor

    def _scale(self) -> float:
        if self._anchor is None:
            self._anchor = self._cache.anchor(self._context)
        assert self._anchor is not None
        return self._anchor


def _relative(times: Mapping[Path, float], path: Path, edge: Path | None, dispatch: Sequence[Path]) -> float:
    """Returns an operator's time with dispatch and edges taken off; everything is relative to the anchor's."""
    short, long = (times[model] for model in dispatch)
    per_operator = max((long - short) / (_LONG_CHAIN - 1), _LEAST)
    started = max(short - per_operator, 0.0)
    # An edge model changes every layout and changes it back, so half of what it costs is what one way costs.
    edges = 0.0 if edge is None else max(times[edge] - started, 0.0) / 2
    # No operator is free: it costs at least what it takes to start one.
    return max(times[path] - started - edges, per_operator)


def _over(rounds: Rounds, anchors: Rounds) -> float:
    """Returns the median over rounds of the ratio of two medians, as far as both have runs that count."""
    both = [pair for pair in zip(rounds, anchors, strict=True) if all(pair)]
    return float(np.median([np.median(mine) / np.median(anchor) for mine, anchor in both]))

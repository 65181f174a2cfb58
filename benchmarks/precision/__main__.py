"""`python -m benchmarks.precision --model FILE --data FOLDER [--runtimes NAME ...] [--seconds S] [--json FILE]`.

Writes one network in every precision, as a job does (calibrated on 256 training images, judged on 2,048 others),
times all files of a runtime interleaved in one fresh process, scores each on the test images by running it, and
prints a table. FOLDER holds CIFAR-10 as `train.parquet` and `test.parquet`; FILE is an ONNX classifier of its images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.coverage.machine import describe
from benchmarks.strategies.images import read, scaled
from compressors.memory import NoMemory
from compressors.problem import Sample
from compressors.sources import ModelSource, load
from compressors.tasks import TASKS
from deploy.bench import LocalBench
from deploy.evaluate import Batch, evaluate
from deploy.measure.report import compare
from deploy.measure.settings import TimingSettings
from deploy.measure.whole import measure
from deploy.precision import PRECISIONS
from deploy.predict import predict
from service.judging.quality import Goal
from service.pipeline.conversion import Attempt, Converter, Material
from service.pipeline.shipping import ship

CALIBRATION, SELECTION = 256, 2048
_BATCH = 64


@dataclass(frozen=True)
class Row:
    """One precision on one runtime.

    Attributes:
        runtime: Which.
        precision: What the file is written in.
        computes: What the runtime computes in.
        milliseconds: p50 at batch 1.
        speedup: Over the float32 file, with the ends of its 95 % interval.
        top1: On the test images.
        agreement: Share of the test images on which the decision is the float32 file's.
        relative_error: Largest difference of an output from the torch graph's, over the largest output, of eight
        images. bound: What rounding explains of it; None where nothing is claimed.
        calibrator: Of int8.
        kept: Operators in float32, of how many.
        size: Bytes.
        refusal: Why it would not ship; None where it may.
    """

    runtime: str
    precision: str
    computes: str
    milliseconds: float | None = None
    speedup: tuple[float, float, float] | None = None
    top1: float | None = None
    agreement: float | None = None
    relative_error: float | None = None
    bound: float | None = None
    calibrator: str | None = None
    kept: tuple[int, int] = (0, 0)
    size: int | None = None
    refusal: str | None = None


class Images(Dataset[Sample]):
    """Some images and their labels, as networks take them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        return (scaled(self._images[index : index + 1])[0],), int(self._labels[index])

    def batch(self, indices: Any) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns several at once."""
        chosen = list(indices)
        return (scaled(self._images[chosen]),), self._labels[chosen]

    def arrays(self) -> Iterator[Batch]:
        """Yields all of them in batches."""
        for start in range(0, len(self), _BATCH):
            inputs, labels = self.batch(range(start, min(start + _BATCH, len(self))))
            yield tuple(each.numpy() for each in inputs), labels.numpy()


def main() -> int:
    """Prints the table, and writes it as JSON where asked to."""
    parser = argparse.ArgumentParser(description="Every precision on every runtime.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runtimes", nargs="*", default=["onnxruntime", "openvino"])
    parser.add_argument("--seconds", type=float, default=20.0, help="at least, for a runtime's files together")
    parser.add_argument("--test", type=int, default=10_000, help="how many test images")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for runtime in options.runtimes for row in rows_of(runtime, options)]
    if options.json:
        options.json.write_text(json.dumps({**describe(), "rows": [asdict(row) for row in rows]}, indent=1))
    print(table(rows))
    return 0


def rows_of(runtime: str, options: argparse.Namespace) -> list[Row]:
    """Returns one row for each precision."""
    graph = load(ModelSource(kind="onnx", path=options.model))
    images, labels = read(options.data, "train")
    parts = [slice(0, CALIBRATION), slice(CALIBRATION, CALIBRATION + SELECTION)]
    calibration, selection = (Images(images[part], labels[part]) for part in parts)
    images, labels = read(options.data, "test")
    test = Images(images[: options.test], labels[: options.test])
    bench = LocalBench(runtime)
    with tempfile.TemporaryDirectory() as folder:
        plain = ship(graph, Path(folder) / "float32.onnx", selection, bench)
        material = Material(calibration, selection, Goal(TASKS["classification"]), bench, NoMemory())
        converter = Converter(plain, material)
        attempts = [converter.convert(each, Path(folder) / f"{each}.onnx") for each in PRECISIONS]
        return _measured(attempts, runtime, test, options.seconds)


def _measured(attempts: list[Attempt], runtime: str, test: Images, seconds: float) -> list[Row]:
    paths = [attempt.shipped.artifact.path for attempt in attempts if attempt.shipped is not None]
    settings = TimingSettings(runtime=runtime, min_seconds=seconds, max_seconds=max(60.0, 2 * seconds))
    timed = dict(zip(paths, measure(paths, settings), strict=True))
    plain = paths[0]
    wanted = _decisions(plain, runtime, test)
    rows = []
    for attempt in attempts:
        shipped, conversion = attempt.shipped, attempt.conversion
        if shipped is None:
            rows.append(Row(runtime, attempt.precision, conversion.computes, refusal=attempt.refusal))
            continue
        path = shipped.artifact.path
        ratio = compare(timed[plain], timed[path])
        worst = max(shipped.agreement.batches, key=lambda entry: entry.max_relative_error)
        rows.append(
            Row(
                runtime,
                attempt.precision,
                conversion.computes,
                1e3 * timed[path].seconds,
                (ratio.speedup, ratio.ci_low, ratio.ci_high),
                evaluate(path, test.arrays(), LocalBench(runtime)).top1,
                float((_decisions(path, runtime, test) == wanted).mean()),
                worst.max_relative_error,
                worst.tolerance if np.isfinite(worst.tolerance) else None,
                conversion.calibrator,
                (len(conversion.kept), conversion.operators),
                shipped.artifact.size_bytes,
                attempt.refusal,
            )
        )
    return rows


def _decisions(path: Path, runtime: str, test: Images) -> np.ndarray:
    found = predict(path, test.arrays(), LocalBench(runtime))
    return np.concatenate([outputs[0].argmax(1) for outputs in found])


def table(rows: list[Row]) -> str:
    """Returns the rows as Markdown."""
    heads = ["runtime", "precision", "computed in", "p50 ms", "speed-up (95 %)", "top-1", "same decisions", "error"]
    heads += ["bound", "int8 by", "in float32", "kB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    if row.speedup is None:
        return f"| {row.runtime} | {row.precision} | not run: {row.refusal} |" + " |" * 9
    value, low, high = row.speedup
    cells = [
        row.runtime,
        row.precision + ("" if row.refusal is None else f" (would not ship: {row.refusal})"),
        row.computes,
        f"{row.milliseconds:.3f}",
        f"{value:.2f} ({low:.2f} to {high:.2f})",
        f"{row.top1:.2%}",
        f"{row.agreement:.2%}",
        f"{row.relative_error:.1e}",
        "-" if row.bound is None else f"{row.bound:.1e}",
        row.calibrator or "-",
        f"{row.kept[0]} of {row.kept[1]}",
        f"{(row.size or 0) / 1e3:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())

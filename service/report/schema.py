"""What a job found, as data. `report.json` is this, and `report.html` is drawn from it alone.

Times are milliseconds, sizes bytes, accuracies fractions. `schema_version` follows semantic versioning: readers may
rely on every field of a major version.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.4"

Outcome = Literal["BUDGET_MET", "BUDGET_NOT_MET", "NO_IMPROVEMENT"]


class _Part(BaseModel):
    # What is infinite, such as the divergence of a network that training ruined, survives being read again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class LatencyReport(_Part):
    """A latency distribution."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    min: float
    count: int
    samples_ms: tuple[float, ...] = Field(description="Down-sampled, for plotting")


class AccuracyReport(_Part):
    """Top-1 of the exported file on the validation split, with its 95 % Wilson interval."""

    top1: float
    low: float
    high: float
    count: int


class FigureReport(_Part):
    """What a number says about a network: its name, its unit (`fraction`, or words), and which way is better."""

    name: str = "top-1 accuracy"
    unit: str = "fraction"
    higher_is_better: bool = True


class QualityReport(_Part):
    """A figure of the exported file on the validation split, with its 95 % interval where one is known."""

    figure: FigureReport
    value: float
    low: float | None = None
    high: float | None = None
    count: int


class InputReport(_Part):
    """One input of the network, per sample."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class AgreementReport(_Part):
    """The exported file against the torch network, at one batch size."""

    batch: int
    max_abs_error: float
    max_rel_error: float
    tolerance: float
    passed: bool


class LayerReport(_Part):
    """One operator of the exported file."""

    name: str
    op: str
    output_shape: tuple[int | str, ...]
    parameters: int
    macs: int
    milliseconds: float | None = Field(default=None, description="Told by the runtime's profiler; see `ProfileReport`")


class AddedReport(_Part):
    """What the runtime adds to the file's operators, such as changes of layout, by type."""

    op: str
    count: int
    milliseconds: float


class ProfileReport(_Part):
    """Where the time goes, by the runtime's own profiler. It slows a run: the sum is not the latency."""

    milliseconds: float = Field(description="Sum over all operators")
    runs: int
    added: tuple[AddedReport, ...] = ()


class KeptReport(_Part):
    """An operator of the float32 file that computes in float32 in the converted one too."""

    node: str
    op: str
    reason: str


class DifferenceReport(_Part):
    """A converted file against the float32 file of the same network, measured on selection samples."""

    agreement: float = Field(description="Share of equal decisions; of outputs that decide nothing, of their variation")
    divergence: float = Field(description="In the report's `divergence_unit`")
    samples: int


class PrecisionReport(_Part):
    """What a file's numbers are written in.

    `computes` is what the runtime computes in on the machine that it was measured on: `float32` where it has no
    units for a half-precision format and only stores numbers in it.
    """

    precision: str
    computes: str
    kept: tuple[KeptReport, ...] = ()
    operators: int = Field(default=0, description="How many could have been converted, those kept included")
    calibrator: str | None = None
    calibration_samples: int = 0
    difference: DifferenceReport | None = None


class PrecisionTrialReport(_Part):
    """One precision that was tried for the network to ship; its latency was timed beside the original's."""

    precision: str
    computes: str
    latency_ms: float | None
    speedup: float | None = Field(description="Over the original in float32")
    selection_quality: float | None
    agreement: float | None = Field(description="With the float32 file of the same network, on selection samples")
    divergence: float | None
    calibrator: str | None
    kept: int
    operators: int
    refusal: str | None = Field(description="Why it could not ship; none where it could")
    chosen: bool


class NetworkReport(_Part):
    """One exported network as measured."""

    filename: str
    sha256: str
    size_bytes: int
    latency: LatencyReport
    accuracy: AccuracyReport | None
    agreement: tuple[AgreementReport, ...]
    parameters: int
    macs: int
    depth: int
    activations: int
    layers: tuple[LayerReport, ...] = Field(description="Of a converted file, those of its float32 file")
    quality: QualityReport | None = None
    profile: ProfileReport | None = None
    precision: PrecisionReport | None = None


class SpeedupReport(_Part):
    """Baseline over result at the budget's percentile, timed interleaved in as many fresh processes as `processes`."""

    value: float
    low: float
    high: float
    confidence: float = 0.95
    rounds: int
    processes: int = 1


class StepReport(_Part):
    """One cut; `error` is the share of the signal that its replacement loses by itself (`compressors.surgery.loss`)."""

    kind: str
    segment: str
    label: str
    operators_before: int
    activations_before: int
    error: float | None = None


class CandidateReport(_Part):
    """One network that was tried. Scores are on the selection samples, never on the validation split."""

    label: str
    steps: tuple[str, ...]
    predicted_ms: float | None
    latency_ms: float | None
    selection_accuracy: float | None
    selection_agreement: float | None
    divergence: float | None
    tuned: bool
    chosen: bool
    selection_quality: float | None = Field(default=None, description="The task's figure, `Report.figure`")


class EpochReport(_Part):
    """One evaluation during fine-tuning."""

    epoch: float
    loss: float
    selection_accuracy: float | None
    divergence: float
    kept: bool
    selection_quality: float | None = None


class TuningReport(_Part):
    """How the result was fine-tuned."""

    epochs: float
    learning_rate: float
    learning_rates_tried: tuple[float, ...]
    precision: str
    seconds: float
    history: tuple[EpochReport, ...]


class RefusalReport(_Part):
    """Something that could not be cut, and why."""

    where: str
    code: str
    reason: str


class DataReport(_Part):
    """Which samples did what."""

    train: int
    calibration: int
    selection: int
    validation: int
    labelled: bool
    classes: int | None
    broken: int
    broken_examples: tuple[str, ...] = Field(default=(), description="A few of them, each with its reason")
    several_labels: bool = Field(default=False, description="Whether a sample may have several classes")
    preprocessing: dict[str, Any]


class MachineReport(_Part):
    """Where it was measured, and in what state."""

    device: str
    description: str
    runtime: str
    runtime_version: str
    threads: int
    precision: str
    state_before: dict[str, Any]
    state_after: dict[str, Any]
    warnings: tuple[str, ...]


class BudgetReport(_Part):
    """What was asked for, and what it came to."""

    asked: str
    milliseconds: float
    percentile: float
    batch: int
    floor_ms: float | None


class ArtifactReport(_Part):
    """A file that was shipped."""

    filename: str
    sha256: str
    size_bytes: int


class Report(_Part):
    """Everything that a job found."""

    schema_version: str = SCHEMA_VERSION
    shoal_version: str
    job: str
    display_name: str = Field("", description="What the caller calls the job; empty for nothing")
    created: str
    model_name: str
    model_source: str
    model_sha256: str | None
    input_shape: tuple[int, ...] = Field(description="Of the first input; `inputs` has all")
    inputs: tuple[InputReport, ...] = ()
    outcome: Outcome
    explanation: str
    budget: BudgetReport
    machine: MachineReport
    baseline: NetworkReport
    result: NetworkReport
    speedup: SpeedupReport
    strategy: str
    strategy_options: dict[str, Any]
    steps: tuple[StepReport, ...]
    candidates: tuple[CandidateReport, ...]
    refusals: tuple[RefusalReport, ...]
    tuning: TuningReport | None
    data: DataReport | None
    accuracy_floor: float | None
    quality_floor: float | None = None
    task: str = "classification"
    figure: FigureReport = FigureReport()
    divergence_unit: str = "nats"
    precisions: tuple[PrecisionTrialReport, ...] = ()
    seed: int
    seconds: float
    phase_seconds: dict[str, float]
    versions: dict[str, str]
    measure_command: str
    artifacts: tuple[ArtifactReport, ...]

    @property
    def title(self) -> str:
        """What the model is called at the head of the page: as the caller calls it, else as its file does."""
        return self.display_name or self.model_name

"""Writes a result to MLflow: a run with the delivered files and figures, and a model version with its lineage."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from service.cli.version import installed_version
from service.registries.mlflow import IDENTITY, SOURCE, result_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from service.batch.outcome import ModelOutcome
    from service.registries.base import Entry
    from service.registries.mlflow import MlflowOptions

ARTIFACT_PATH: Final = "model"
DELIVERED: Final = "shoal"
"""Where in the model the delivered folder is: whole and alone, so that `shoal verify` finds what it expects."""
_EXPERIMENT: Final = "shoal"
_REQUIREMENTS: Final = ("mlflow", "onnx", "onnxruntime")


@final
class Writer:
    """Writes results to one registered model. Not for several threads at once."""

    def __init__(self, client: MlflowClient, options: MlflowOptions, target: str) -> None:
        """Works on an open connection.

        Args:
            client: MLflow's.
            options: What to write.
            target: Name of the registered model.
        """
        self._client = client
        self._options = options
        self._target = target

    def write(self, entry: Entry, outcome: ModelOutcome, folder: Path) -> str:
        """Writes a result and returns `models:/NAME/VERSION`.

        The version with its tags is made last, at once: what dies before leaves no version, and its run is used again.
        """
        run = self._run(entry, outcome)
        run_id = run.info.run_id
        self._log(run_id, outcome, folder)
        self._ensure_target(entry)
        version = self._client.create_model_version(
            self._target,
            source=f"{run.info.artifact_uri}/{ARTIFACT_PATH}",
            run_id=run_id,
            tags=_tags(entry, outcome),
            description=_description(entry, outcome),
        )
        self._client.set_terminated(run_id)
        if self._options.alias is not None:
            self._client.set_registered_model_alias(self._target, self._options.alias, str(version.version))
        return f"models:/{self._target}/{version.version}"

    def _run(self, entry: Entry, outcome: ModelOutcome) -> Run:
        experiment = self._experiment(entry)
        mark = f"tags.`{IDENTITY}` = '{outcome.identity}' and tags.`{SOURCE}` = '{entry.place.replace(chr(39), '')}'"
        begun = self._client.search_runs([experiment], f"attributes.status = 'RUNNING' and {mark}", max_results=1)
        if begun:
            return begun[0]
        return self._client.create_run(experiment, tags=_tags(entry, outcome), run_name=f"shoal {entry.label}")

    def _experiment(self, entry: Entry) -> str:
        source_run = entry.lineage.get("source_run")
        if self._options.experiment is None and source_run:
            return str(self._client.get_run(source_run).info.experiment_id)
        name = self._options.experiment or _EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known is not None else self._client.create_experiment(name))

    def _log(self, run_id: str, outcome: ModelOutcome, folder: Path) -> None:
        from mlflow.entities import Metric, Param

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, 0) for name, value in figures(outcome).items()]
        params = [Param("budget_ms", f"{outcome.budget_ms or 0:g}"), Param("percentile", f"{outcome.percentile:g}")]
        self._client.log_batch(run_id, metrics=metrics, params=params)
        with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
            place = Path(temporary) / ARTIFACT_PATH
            _describe(place, folder, run_id)
            self._client.log_artifacts(run_id, str(place), ARTIFACT_PATH)

    def _ensure_target(self, entry: Entry) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(self._target)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(self._target, description=f"{entry.name}, made faster by Shoal.")


def figures(outcome: ModelOutcome) -> dict[str, float]:
    """Returns a result's metrics by name; times in milliseconds, accuracies as fractions."""
    found: dict[str, float | None] = {
        "latency_before_ms": outcome.before_ms,
        "latency_after_ms": outcome.after_ms,
        "shoal_seconds": outcome.seconds,
    }
    if outcome.speedup is not None:
        speedup = outcome.speedup
        found |= {"speedup": speedup.value, "speedup_low": speedup.low, "speedup_high": speedup.high}
    if outcome.quality is not None:
        name = "accuracy" if outcome.quality.name == "top-1 accuracy" else "quality"
        for when, value in (("before", outcome.quality.before), ("after", outcome.quality.after)):
            found |= {f"{name}_{when}": value.value, f"{name}_{when}_low": value.low, f"{name}_{when}_high": value.high}
    if outcome.parameters is not None:
        found |= {"parameters_before": outcome.parameters[0], "parameters_after": outcome.parameters[1]}
    return {name: float(value) for name, value in found.items() if value is not None}


def _tags(entry: Entry, outcome: ModelOutcome) -> dict[str, str]:
    lineage = {f"shoal.{name}": value for name, value in entry.lineage.items() if value}
    own = {IDENTITY: outcome.identity, SOURCE: entry.place, "shoal.version": installed_version()}
    return {**result_tags(outcome), **lineage, **own}


def _description(entry: Entry, outcome: ModelOutcome) -> str:
    times = f"{outcome.speedup.value:.2f} times as fast" if outcome.speedup is not None else "faster"
    return f"{entry.label} made shallower by Shoal: {times}. {outcome.reason} See {DELIVERED}/report.html in its files."


def _describe(place: Path, folder: Path, run_id: str) -> None:
    """Writes an MLflow model around a delivered folder, so that MLflow's ONNX flavour loads it."""
    from mlflow import pyfunc
    from mlflow.models import Model

    delivered = place / DELIVERED
    delivered.mkdir(parents=True)
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        _link(file, delivered / file.name)
    # MLflow's ONNX flavour looks for its description beside the network: that is there once more.
    for file in sorted(folder.glob("model.onnx*")):
        _link(file, place / file.name)
    data = "model.onnx"
    manifest = _manifest(folder)
    described = Model(artifact_path=ARTIFACT_PATH, run_id=run_id, signature=_signature(manifest))
    described.add_flavor("onnx", data=data, providers=None, onnx_session_options=None, code=None)
    pyfunc.add_to_model(described, loader_module="mlflow.onnx", data=data, python_env="python_env.yaml")
    described.save(str(place / "MLmodel"))
    (place / "requirements.txt").write_text("\n".join(_REQUIREMENTS) + "\n")
    (place / "python_env.yaml").write_text("dependencies:\n- -r requirements.txt\n")


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # on another disk
        shutil.copyfile(file, copy)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _signature(manifest: dict[str, Any]) -> Any:
    """Returns what goes in and comes out, as MLflow says it; None where numpy is not installed or nothing is known."""
    try:
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types.schema import Schema, TensorSpec

        def schema(edges: list[dict[str, Any]]) -> Any:
            return Schema(
                [
                    TensorSpec(
                        np.dtype(edge["dtype"]),
                        tuple(side if isinstance(side, int) else -1 for side in edge["shape"]),
                        edge["name"],
                    )
                    for edge in edges
                ]
            )

        return ModelSignature(schema(manifest["model"]["inputs"]), schema(manifest["model"]["outputs"]))
    except (ModuleNotFoundError, KeyError, TypeError, AttributeError):
        return None

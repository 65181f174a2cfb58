"""Registered models as MLflow's flavours write them, made without torch, onnx or training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml


def register(client: Any, name: str, files: dict[str, bytes], flavors: dict[str, Any], **tags: str) -> str:
    """Logs a model in a run, registers it, and returns the number of the version."""
    try:
        client.create_registered_model(name)
    except Exception as exc:
        if getattr(exc, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
    experiment = client.get_experiment_by_name("training")
    number = experiment.experiment_id if experiment else client.create_experiment("training")
    run = client.create_run(number)
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        (Path(folder) / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
        client.log_artifacts(run.info.run_id, folder, "model")
    made = client.create_model_version(
        name,
        f"{run.info.artifact_uri}/model",
        run_id=run.info.run_id,
        tags={k.replace("__", "."): v for k, v in tags.items()},
    )
    return str(made.version)


def register_onnx(client: Any, name: str, content: bytes, **tags: str) -> str:
    """Registers a version of the ONNX flavour."""
    return register(client, name, {"model.onnx": content}, {"onnx": {"data": "model.onnx"}}, **tags)


def register_pt2(client: Any, name: str, content: bytes, **tags: str) -> str:
    """Registers a version of the PyTorch flavour that was exported."""
    return register(client, name, {"data/model.pt2": content}, {"pytorch": {"model_data": "data"}}, **tags)


def register_pickle(client: Any, name: str, **tags: str) -> str:
    """Registers a version of the PyTorch flavour that was pickled."""
    return register(client, name, {"data/model.pth": b"\x80\x04."}, {"pytorch": {"model_data": "data"}}, **tags)

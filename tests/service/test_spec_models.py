"""Which models a request may name, and what a worker makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.jobs.admission import artifact_references
from service.pipeline.inputs import load_model
from service.pipeline.precisions import FORMATS
from service.spec import Budget, JobSpec, ModelSource, NamedModel
from service.storage.artifacts import ArtifactKind
from service.worker.messages import WorkOrder
from tests.service.pipeline.test_imported import write

ID = "artifacts/abcd-1234"


@pytest.mark.parametrize("kind", ["pt2", "onnx", "folder"])
def test_a_model_file_of_each_kind_is_referred_to(kind: str) -> None:
    spec = JobSpec(model=ModelSource.model_validate({f"{kind}_artifact": ID}), budget=Budget(fraction=0.5))
    (reference,) = artifact_references(spec)
    assert (reference.field, reference.name, reference.kind) == (f"model.{kind}_artifact", ID, ArtifactKind.MODEL)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({}, "exactly one of pt2_artifact, onnx_artifact"),
        ({"pt2_artifact": ID, "onnx_artifact": ID}, "exactly one"),
        ({"onnx_artifact": ID, "input_shapes": [{"name": "x", "sizes": [1]}] * 2}, "named twice"),
        ({"onnx_artifact": ID, "input_shapes": [{"name": "", "sizes": [1]}]}, "at least 1 character"),
        ({"onnx_artifact": ID, "input_shapes": [{"name": "x", "sizes": [0]}]}, "greater than or equal to 1"),
        ({"named": {"architecture": "timm:a/b"}}, "pattern"),
        ({"named": {"architecture": "transformers:/etc"}}, "pattern"),
        ({"named": {"architecture": "timm:a", "pretrained": True, "weights_artifact": ID}}, "one of the two"),
        ({"named": {"architecture": "timm:a", "task": "Fill Mask"}}, "pattern"),
    ],
)
def test_a_model_that_breaks_a_rule_is_refused(model: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSource.model_validate(model)


@pytest.mark.parametrize("name", ["timm:resnet18.a1_in1k", "transformers:google/bert_uncased-x", "diffusers:a/b.c"])
def test_names_of_every_registry_pass(name: str) -> None:
    assert NamedModel(architecture=name).architecture == name


def test_a_worker_loads_an_onnx_file_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    spec = JobSpec(model=ModelSource(onnx_artifact=ID), budget=Budget(fraction=0.5))
    order = WorkOrder(
        job="analyses/a", task="analyze", spec=spec, files={ID: path},
        folder=tmp_path, cache_folder=tmp_path, deadline_seconds=60,
    )  # fmt: skip
    model = load_model(order)
    assert model.source == "an ONNX file"
    assert [spec.name for spec in model.graph.inputs] == ["x"]
    assert len(model.sha256 or "") == 64


@pytest.mark.parametrize("name", ["FP32", "FP16", "BF16", "INT8", "AUTO"])
def test_every_precision_of_the_contract_may_be_asked_for(name: str) -> None:
    target = {"precision": f"PRECISION_{name}"}
    spec = JobSpec.model_validate({"model": {"onnx_artifact": ID}, "budget": {"fraction": 0.5}, "target": target})
    assert spec.target.precision == f"PRECISION_{name}"


def test_precisions_are_those_of_the_contract() -> None:
    assert {"PRECISION_UNSPECIFIED", *FORMATS} == set(job_pb.Precision.keys())
    assert (
        JobSpec(model=ModelSource(onnx_artifact=ID), budget=Budget(fraction=0.5)).target.precision == "PRECISION_FP32"
    )

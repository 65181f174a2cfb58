"""Triton's configuration, read by its own protobuf message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.delivery.manifest import Manifest, ManifestError, read_manifest
from service.delivery.triton import TritonSettings, config_text, model_name, write_repository
from tests.service.delivery.made import claim, write_manifest

HOSTILE = 'x" } dynamic_batching { } # \\ \n\x00é'


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_repository_has_the_layout_of_triton(delivered: Path, tmp_path: Path) -> None:
    place = write_repository(delivered, tmp_path / "models")
    assert place == tmp_path / "models/bright_est"
    files = {str(path.relative_to(tmp_path / "models")) for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "bright_est/config.pbtxt",
        "bright_est/1/model.onnx",
        "bright_est/labels.txt",
    }
    assert (place / "1/model.onnx").read_bytes() == (delivered / "model.onnx").read_bytes()
    assert (place / "labels.txt").read_text() == "cat\ndog\nfish\n"
    assert "tritonserver --model-repository=/models" in (tmp_path / "models/README.md").read_text()


def test_the_configuration_says_what_the_manifest_says(delivered: Path, tmp_path: Path) -> None:
    place = write_repository(delivered, tmp_path)
    config = parsed((place / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("bright_est", "onnxruntime", 8)
    assert config.default_model_filename == "model.onnx"
    (taken,), (given,) = config.input, config.output
    types = model_config_pb2.DataType
    assert (taken.name, taken.data_type, list(taken.dims)) == ("image", types.Value("TYPE_FP32"), [3, 8, 8])
    assert (given.name, list(given.dims), given.label_filename) == ("scores", [3], "labels.txt")
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    assert not config.HasField("dynamic_batching")


def test_batching_is_asked_for(delivered: Path) -> None:
    config = parsed(config_text(read_manifest(delivered), "x", TritonSettings(delay_microseconds=500, max_batch=32)))
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.max_batch_size == 32


def test_a_fixed_batch_is_part_of_the_shape(folder: Path) -> None:
    fixed = write_manifest(
        folder,
        inputs=[{"name": "a", "dtype": "int64", "shape": [4, "words"]}, {"name": "b", "dtype": "bool", "shape": [4]}],
        outputs=[{"name": "y", "dtype": "float16", "shape": [4, 2]}],
    )
    config = parsed(config_text(fixed, "x", TritonSettings(delay_microseconds=5)))
    assert config.max_batch_size == 0
    assert [list(each.dims) for each in (*config.input, *config.output)] == [[4, -1], [4], [4, 2]]
    assert not config.HasField("dynamic_batching")


def test_a_sample_that_is_one_number_is_reshaped(folder: Path) -> None:
    timed = write_manifest(folder, inputs=[{"name": "timestep", "dtype": "int64", "shape": ["batch"]}])
    (timestep,) = parsed(config_text(timed, "x", TritonSettings())).input
    assert (list(timestep.dims), timestep.HasField("reshape"), list(timestep.reshape.shape)) == ([1], True, [])


@pytest.mark.parametrize(("precision", "hint"), [("float32", ""), ("float16", ""), ("bfloat16", "YES")])
def test_openvino_is_served_by_its_own_backend_as_it_was_measured(folder: Path, precision: str, hint: str) -> None:
    write_manifest(folder, precision=precision)
    text = config_text(read_manifest(claim(folder, "openvino", "local/cpu")), "x", TritonSettings())
    config = parsed(text)
    assert config.backend == "openvino"
    set_to = {key: value.string_value for key, value in config.parameters.items()}
    measured = {"INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
    assert set_to == measured | ({"HINT_BF16": hint} if hint else {})
    assert ("# Timed without bfloat16" in text) == (not hint)


def test_the_processor_is_asked_for_where_it_was_measured(delivered: Path) -> None:
    config = parsed(config_text(read_manifest(delivered), "x", TritonSettings()))
    (group,) = config.instance_group
    assert (group.Kind.Name(group.kind), list(group.gpus)) == ("KIND_CPU", [])
    assert not config.HasField("optimization")


@pytest.mark.parametrize("device", ["local/cuda:1", "agent/edge/cuda:1"])
@pytest.mark.parametrize(
    ("runtime", "accelerators"),
    [
        ("onnxruntime", ["cuda"]),
        ("onnxruntime-tensorrt", ["tensorrt", "cuda"]),
        ("tensorrt", ["tensorrt", "cuda"]),
    ],
)
def test_a_gpu_is_asked_for_where_it_was_measured(
    folder: Path, runtime: str, accelerators: list[str], device: str
) -> None:
    config = parsed(config_text(read_manifest(claim(folder, runtime, device)), "x", TritonSettings()))
    assert config.backend == "onnxruntime"
    (group,) = config.instance_group
    assert (group.Kind.Name(group.kind), list(group.gpus), group.count) == ("KIND_GPU", [1], 1)
    found = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [each.name for each in found] == accelerators
    assert dict(found[-1].parameters) == {"use_tf32": "0"}


def test_engines_take_the_batches_of_triton_and_are_best_at_the_one_that_was_measured(folder: Path) -> None:
    manifest = read_manifest(claim(folder, "onnxruntime-tensorrt", "local/cuda:0"))
    config = parsed(config_text(manifest, "x", TritonSettings(max_batch=32)))
    tensorrt = config.optimization.execution_accelerators.gpu_execution_accelerator[0]
    assert dict(tensorrt.parameters) == {
        "precision_mode": "FP32",
        "trt_profile_min_shapes": "image:1x3x8x8",
        "trt_profile_opt_shapes": f"image:{manifest.budget.batch}x3x8x8",
        "trt_profile_max_shapes": "image:32x3x8x8",
    }


def test_engines_of_a_fixed_batch_have_no_profile(folder: Path) -> None:
    write_manifest(folder, inputs=[{"name": "image", "dtype": "float32", "shape": [4, 3, 8, 8]}])
    config = parsed(config_text(read_manifest(claim(folder, "tensorrt", "local/cuda:0")), "x", TritonSettings()))
    tensorrt = config.optimization.execution_accelerators.gpu_execution_accelerator[0]
    assert dict(tensorrt.parameters) == {"precision_mode": "FP32"}


def test_hostile_names_stay_names(folder: Path, tmp_path: Path) -> None:
    hostile = write_manifest(
        folder,
        inputs=[{"name": HOSTILE, "dtype": "float32", "shape": ["batch", 3]}],
        labels=["one\nmore", "two\r", "three\u2028"],
    )
    config = parsed(config_text(hostile, "x", TritonSettings()))
    assert [each.name for each in config.input] == [HOSTILE]
    assert not config.HasField("dynamic_batching")
    place = write_repository(folder, tmp_path / "models")
    assert (place / "labels.txt").read_text() == "one more\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("timm:resnet18.a1_in1k", "resnet18_a1_in1k"),
        ("transformers:google/bert", "bert"),
        ("../../x.onnx", "x"),
        ("..", "model"),
        ("é\n", "model"),
    ],
)
def test_the_name_is_harmless_whatever_the_source_is_called(delivered: Path, source: str, name: str) -> None:
    document = read_manifest(delivered).model_dump(mode="json")
    document["source"]["name"] = source
    assert model_name(Manifest.model_validate(document)) == name


def test_a_type_that_triton_does_not_know_is_refused(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, inputs=[{"name": "x", "dtype": "complex64", "shape": ["batch"]}])
    with pytest.raises(ManifestError, match="x has the element type complex64; Triton knows float32"):
        write_repository(folder, tmp_path / "models")
    assert not (tmp_path / "models").exists()

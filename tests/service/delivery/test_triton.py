"""Triton's configuration, read by its own protobuf message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.delivery.manifest import Manifest, ManifestError, read_manifest
from service.delivery.triton import TritonSettings, config_text, model_name, write_repository
from tests.service.delivery.made import write_manifest

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


def test_openvino_is_served_by_its_own_backend(delivered: Path) -> None:
    document = read_manifest(delivered).model_dump(mode="json")
    document["runtime"]["name"] = "openvino"
    assert parsed(config_text(Manifest.model_validate(document), "x", TritonSettings())).backend == "openvino"


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

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.batch.identity import hash_model, hash_split, identify, request_id
from service.cli.request import ModelFlags

ANY = ModelFlags("net.onnx")


def test_names_and_places_are_no_part_of_the_content(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"network")
    assert hash_model(tmp_path / "a.onnx") == hash_model(tmp_path / "b.onnx") == hashlib.sha256(b"network").hexdigest()


def test_a_folder_is_its_parts_by_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
        (tmp_path / folder / "model.safetensors").write_bytes(b"weights")
    assert hash_model(tmp_path / "one") == hash_model(tmp_path / "two")
    (tmp_path / "two/config.json").write_text('{"layers": 2}')
    assert hash_model(tmp_path / "one") != hash_model(tmp_path / "two")


def test_a_sample_that_moves_to_another_class_changes_the_samples(tmp_path: Path) -> None:
    for folder, name in (("a", "cat/1.png"), ("b", "dog/1.png")):
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / name).write_bytes(b"image")
    assert hash_split(tmp_path / "a") != hash_split(tmp_path / "b")


def test_everything_that_a_result_depends_on_changes_the_identity() -> None:
    same = identify("aa", None, ANY, {"seed": 1})
    assert same == identify("aa", None, ModelFlags("elsewhere/other.onnx"), {"seed": 1})
    others = [
        identify("bb", None, ANY, {"seed": 1}),
        identify("aa", "cc", ANY, {"seed": 1}),
        identify("aa", None, ANY, {"seed": 2}),
        identify("aa", None, ModelFlags("net.onnx", sample_shape=(3, 32, 32)), {"seed": 1}),
        identify("aa", None, ModelFlags("net.onnx", task="denoising"), {"seed": 1}),
    ]
    assert len({same, *others}) == 6


def test_a_request_id_is_a_uuid4_that_comes_out_the_same_again() -> None:
    spec = job_pb.OptimizationJobSpec(seed=3)
    first = request_id("aa", 0, spec, "net")
    assert uuid.UUID(first).version == 4
    assert first == request_id("aa", 0, job_pb.OptimizationJobSpec(seed=3), "net")
    others = {request_id("aa", 1, spec, "net"), request_id("bb", 0, spec, "net"), request_id("aa", 0, spec, "other")}
    assert len({first, *others}) == 4

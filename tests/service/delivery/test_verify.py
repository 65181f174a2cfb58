"""Checks of whole folders: one that is as it was delivered, and every way in which one is not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.delivery import modelchecks, reportchecks
from service.delivery.checks import Check
from service.delivery.manifest import FILENAME
from service.delivery.verify import verify
from service.report.schema import Report
from tests.service.delivery.made import NOWHERE, claim, deliver, write_half, write_manifest, write_model


def failures(folder: Path) -> list[Check]:
    return [check for check in verify(folder).checks if check.status == "failed"]


def the_failure(folder: Path) -> Check:
    (found,) = failures(folder)
    return found


def test_a_folder_as_it_was_delivered_passes(delivered: Path) -> None:
    found = verify(delivered)
    assert found.passed
    assert [check.name for check in found.checks] == [
        "manifest",
        *["file"] * 5,
        "run.py",
        *["report"] * 2,
        *["model"] * 3,
        *["run"] * 2,
    ]
    said = [check.message for check in found.checks if check.name == "run"]
    assert "scores (1, 3)" in said[0]
    assert "scores (3, 3)" in said[1]


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "is missing"),
        (grow, "has another size"),
        (flip, "was changed: its SHA-256 is another"),
    ],
)
@pytest.mark.parametrize("name", ["model.onnx", "report.json", "plan.json", "run.py"])
def test_every_file_is_held_to_the_manifest(
    folder: Path, name: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder / name)
    found = the_failure(folder)
    assert (found.name, found.subject, found.message) == ("file", name, message)
    assert found.got != found.wanted


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    outside = (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(outside)
    assert the_failure(folder).got == "a link"


def test_what_would_never_end_is_not_read(folder: Path) -> None:
    (folder / "plan.json").unlink()
    os.mkfifo(folder / "plan.json")
    assert the_failure(folder).wanted == "a plain file"


def test_what_is_not_in_the_manifest_is_named(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "numpy.py").write_text("")
    found = {(check.subject, check.got) for check in failures(folder)}
    assert found == {("more", "a folder"), ("link", "a link"), ("numpy.py", "a file")}


def test_a_folder_without_manifest_has_one_failure(tmp_path: Path) -> None:
    assert the_failure(tmp_path).message.startswith("there is no manifest.json")


def test_nothing_is_opened_where_a_file_is_not_the_manifests(folder: Path) -> None:
    flip(folder / "model.onnx")
    checks = verify(folder).checks
    assert checks[-1].status == "skipped"
    assert {check.name for check in checks} == {"manifest", "file", "model"}


def test_another_program_in_place_of_ours_is_told(folder: Path) -> None:
    (folder / "run.py").write_text("print('trust me')")
    write_manifest(folder)
    assert the_failure(folder).message == "is none of Shoal's programs: read it before you run it"


def test_a_program_of_an_unknown_version_is_told(folder: Path) -> None:
    document = json.loads((folder / FILENAME).read_bytes())
    (folder / FILENAME).write_text(json.dumps({**document, "schema_version": "1.99"}))
    assert (the_failure(folder).name, the_failure(folder).got) == ("run.py", "1.99")


def rewrite(folder: Path, **fields: Any) -> None:
    """Changes the report, and leaves the manifest's figures as they were."""
    before = json.loads((folder / FILENAME).read_bytes())
    report = Report.model_validate_json((folder / "report.json").read_bytes()).model_copy(update=fields)
    (folder / "report.json").write_text(report.model_dump_json())
    after = json.loads(write_manifest(folder, sha256=before["model"]["sha256"]).model_dump_json())
    (folder / FILENAME).write_text(json.dumps({**before, "files": after["files"]}))


def test_a_report_of_another_model_is_told(folder: Path) -> None:
    report = Report.model_validate_json((folder / "report.json").read_bytes())
    rewrite(folder, result=report.result.model_copy(update={"sha256": "0" * 64}))
    assert the_failure(folder).message == "speaks of another SHA-256 of the model"


def test_a_report_with_better_figures_is_told(folder: Path) -> None:
    report = Report.model_validate_json((folder / "report.json").read_bytes())
    rewrite(folder, speedup=report.speedup.model_copy(update={"value": 9.0}), outcome="BUDGET_NOT_MET")
    assert {check.message for check in failures(folder)} == {
        "speaks of another speed-up",
        "speaks of another outcome",
    }


def test_a_report_of_another_original_is_told(folder: Path) -> None:
    report = Report.model_validate_json((folder / "report.json").read_bytes())
    rewrite(folder, baseline=report.baseline.model_copy(update={"sha256": "0" * 64}))
    assert the_failure(folder).message == "speaks of another baseline.onnx"
    rewrite(folder, baseline=report.baseline.model_copy(update={"filename": "../x.onnx"}))
    assert the_failure(folder).message == "names an original that is not in the manifest"


@pytest.mark.parametrize("content", ["", "[" * 100_000, '{"a": 1}'])
def test_a_report_that_is_none_is_told(folder: Path, content: str) -> None:
    manifest = json.loads((folder / FILENAME).read_bytes())
    (folder / "report.json").write_text(content)
    entry = next(entry for entry in manifest["files"] if entry["filename"] == "report.json")
    entry.update(size_bytes=len(content), sha256=hashlib.sha256(content.encode()).hexdigest())
    (folder / FILENAME).write_text(json.dumps(manifest))
    assert the_failure(folder).message.startswith("report.json is no report")


def test_a_huge_report_is_not_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reportchecks, "MAX_BYTES", 100)
    assert the_failure(folder).message.endswith("at most 100 are read")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 8, 8]}]}, "inputs"),
        ({"inputs": [{"name": "image", "dtype": "float16", "shape": ["batch", 3, 8, 8]}]}, "inputs"),
        ({"inputs": [{"name": "image", "dtype": "float32", "shape": [1, 3, 8, 8]}]}, "inputs"),
        ({"outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", 4]}]}, "outputs"),
    ],
)
def test_other_inputs_or_outputs_than_stated_are_told(folder: Path, changes: dict[str, Any], what: str) -> None:
    write_manifest(folder, **changes)
    assert the_failure(folder).message == f"has other {what} than the manifest says"


def test_a_fixed_batch_is_the_one_that_is_run(tmp_path: Path) -> None:
    edges = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [4, 3, 8, 8]}],
        "outputs": [{"name": "scores", "dtype": "float32", "shape": [4, 3]}],
    }
    found = verify(deliver(tmp_path / "out", partial(write_model, batch=4), **edges))
    assert found.passed
    assert [check.subject for check in found.checks if check.name == "run"] == ["batch 4"]


def test_outputs_that_are_not_finite_are_told(tmp_path: Path) -> None:
    found = failures(deliver(tmp_path / "out", partial(write_model, bias=float("nan"))))
    assert [check.message for check in found] == ["output scores is not finite"] * 2
    assert found[0].got == "3 of 3"


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    def write(path: Path) -> Path:
        path.write_bytes(b"\xff\x01nonsense")
        return path

    assert the_failure(deliver(tmp_path / "out", write)).message.startswith("'model.onnx' is ")


def external(path: Path, location: str) -> Path:
    """Writes the network with its weights in another file."""
    model = onnx.load(write_model(path))
    (path.parent / location.replace("\\", "/").rpartition("/")[2]).write_bytes(
        onnx.numpy_helper.to_array(model.graph.initializer[0]).tobytes()
    )
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_model_belong_to_it(tmp_path: Path) -> None:
    write = partial(external, location="model.onnx.data")
    folder = deliver(tmp_path / "out", write, weights=["model.onnx.data"])
    assert failures(folder) == []
    (folder / "model.onnx.data").write_bytes(np.zeros(9, np.float32).tobytes())
    assert the_failure(folder).subject == "model.onnx.data"


def test_weights_that_the_manifest_does_not_name_are_told(tmp_path: Path) -> None:
    folder = deliver(tmp_path / "out", partial(external, location="model.onnx.data"))
    assert the_failure(folder).message == "keeps its weights in other files"


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "..\\secret.bin"])
def test_weights_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = deliver(tmp_path / "out", partial(external, location=location))
    assert "only files in its own folder are allowed" in the_failure(folder).message


def test_a_model_that_asks_for_too_much_is_not_run(delivered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelchecks, "MAX_ELEMENTS", 200)
    assert the_failure(delivered).message == "an input is too large to try"


def test_a_runtime_that_is_not_there_is_told(folder: Path) -> None:
    document = json.loads((folder / FILENAME).read_bytes())
    document["runtime"]["name"] = "abacus"
    (folder / FILENAME).write_text(json.dumps(document))
    assert "runtime 'abacus' cannot be used" in the_failure(folder).message


GPU_RUNTIMES = ["onnxruntime", "onnxruntime-tensorrt", "tensorrt"]


def runs(folder: Path) -> list[Check]:
    found = verify(folder)
    assert found.passed
    return [check for check in found.checks if check.name == "run"]


@pytest.mark.parametrize("runtime", GPU_RUNTIMES)
def test_a_model_that_only_a_gpu_that_is_not_here_can_run_is_passed_over(tmp_path: Path, runtime: str) -> None:
    folder = deliver(tmp_path / "out", partial(write_half, precision="bfloat16"))
    (check,) = runs(claim(folder, runtime, NOWHERE))
    assert (check.status, check.subject) == ("skipped", "model.onnx")
    assert check.message.startswith("was not run. ")
    assert "Nor can the processor stand in: ONNX Runtime cannot load 'model.onnx'" in check.message


@pytest.mark.parametrize("runtime", GPU_RUNTIMES)
def test_the_processor_stands_in_for_a_gpu_that_is_not_here_and_it_is_said(folder: Path, runtime: str) -> None:
    checks = runs(claim(folder, runtime, NOWHERE))
    assert [check.status for check in checks] == ["ok"] * 2
    assert all("in onnxruntime" in check.message for check in checks)
    assert all(check.message.endswith(f"where {runtime} on cuda:99 is not here") for check in checks)


def test_a_model_that_its_own_runtime_cannot_run_is_told(tmp_path: Path) -> None:
    folder = deliver(tmp_path / "out", partial(write_half, precision="bfloat16"))
    assert the_failure(folder).message.startswith("ONNX Runtime cannot load 'model.onnx'")


def test_a_model_is_run_with_the_runtime_that_it_was_measured_with(folder: Path) -> None:
    assert all("in openvino" in check.message for check in runs(claim(folder, "openvino", "local/cpu")))


def test_a_runtime_that_does_not_run_on_the_device_is_told(folder: Path) -> None:
    assert "runs on cuda" in the_failure(claim(folder, "tensorrt", "local/cpu")).message


def test_engines_that_run_py_kept_are_no_part_of_the_folder(folder: Path) -> None:
    (folder / "engines" / "a").mkdir(parents=True)
    found = verify(folder)
    assert found.passed
    assert ("engines", "skipped") in {(check.subject, check.status) for check in found.checks}


def test_a_file_that_is_called_as_the_folder_of_engines_is_told(folder: Path) -> None:
    (folder / "engines").write_text("something else")
    assert the_failure(folder).subject == "engines"

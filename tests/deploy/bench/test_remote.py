"""A device far away answers what the one at hand does: the same code, with questions and answers on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.artifact import Artifact
from deploy.bench import LocalBench, remote
from deploy.bench.perform import perform
from deploy.bench.remote import RemoteBench, largest_engine
from deploy.bench.work import Answer, Question, pack_models, read_batches, unpack_models, write_batches
from deploy.digest import file_digest
from deploy.engines.metadata import MOST_METADATA, metadata_path
from deploy.errors import DataError, EngineMisfitError, MeasureError, ModelFileError, RuntimeMissingError
from deploy.measure.settings import TimingSettings
from deploy.measure.whole import measure

QUICK = TimingSettings(min_seconds=0.05, min_samples=5, warmup_seconds=0.05, precision=None, processes=1)


class Wire:
    """Carries questions as JSON to the agent's half, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: list[str] = []

    def __call__(self, question: Question) -> Answer:
        self.kinds.append(question.kind)
        home = self.folder / str(len(self.kinds))
        home.mkdir()
        request = json.loads(json.dumps(question.request))
        found = perform(Question(question.kind, request, question.files), home)
        return Answer(json.loads(json.dumps(found.result)), found.files)


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    (tmp_path / "far").mkdir()
    return Wire(tmp_path / "far")


@pytest.fixture
def far(wire: Wire, tmp_path: Path) -> RemoteBench:
    return RemoteBench("onnxruntime", "cpu", wire, tmp_path / "scratch")


def batches(*sizes: int) -> list[tuple[np.ndarray, ...]]:
    generator = np.random.default_rng(0)
    return [(generator.standard_normal((size, 3, 8, 8)).astype(np.float32),) for size in sizes]


def test_outputs_are_those_of_the_runtime_at_hand(artifact: Artifact, far: RemoteBench) -> None:
    feeds = batches(4, 4, 3)
    wanted = list(LocalBench().run(artifact.path, feeds, threads=1))
    got = list(far.run(artifact.path, feeds, threads=1))
    assert [len(batch[0]) for batch in got] == [4, 4, 3]
    for mine, theirs in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])


def test_many_inputs_travel_in_pieces(
    artifact: Artifact, far: RemoteBench, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHUNK_BYTES", 2 * 4 * 3 * 8 * 8 * 4)
    feeds = batches(4, 4, 4, 4, 1)
    got = np.concatenate([batch[0] for batch in far.run(artifact.path, feeds)])
    assert wire.kinds == ["run"] * 3
    np.testing.assert_allclose(got, np.concatenate([batch[0] for batch in LocalBench().run(artifact.path, feeds)]))


def test_edges_are_those_of_the_runtime_at_hand(artifact: Artifact, far: RemoteBench, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    wanted = LocalBench().edges([artifact.path, artifact.path], 1, here)
    got = far.edges([artifact.path, artifact.path], 1, there)
    assert [path and path.read_bytes() for path in got] == [path and path.read_bytes() for path in wanted]
    assert all(path is None or path.parent == there for path in got)


def test_an_engine_from_afar_is_what_the_runtime_there_made(artifact: Artifact, wire: Wire, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    engine = RemoteBench("openvino", "cpu", wire, tmp_path / "scratch").engine(artifact.path, tmp_path)
    assert engine is not None
    (feed,) = batches(2)[0]
    compiled = openvino.Core().import_model(engine.read_bytes(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (got,) = compiled.create_infer_request().infer([feed]).values()
    ((wanted,),) = LocalBench("openvino").run(artifact.path, [(feed,)])
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_what_is_said_of_an_engine_comes_with_it(artifact: Artifact, wire: Wire, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    engine = RemoteBench("openvino", "cpu", wire, tmp_path / "scratch").engine(artifact.path, tmp_path)
    assert engine is not None
    stated = json.loads(metadata_path(engine).read_bytes())["engine"]
    assert (stated["onnx_sha256"], stated["engine_sha256"]) == (artifact.sha256, file_digest(engine))


def test_a_runtime_that_makes_no_engines_has_none(artifact: Artifact, far: RemoteBench, tmp_path: Path) -> None:
    assert far.engine(artifact.path, tmp_path) is None
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("large", [0, 1])
def test_more_than_an_engine_can_be_is_not_taken(large: int, artifact: Artifact, tmp_path: Path) -> None:
    files, limits = (tmp_path / "a", tmp_path / "b"), (largest_engine(artifact.size_bytes), MOST_METADATA)
    for place, (file, limit) in enumerate(zip(files, limits, strict=True)):
        with file.open("wb") as stream:
            stream.truncate(limit + (place == large))
    hostile = RemoteBench("tensorrt", "cuda:0", lambda _: Answer({"engine": True}, files), tmp_path / "scratch")
    with pytest.raises(EngineMisfitError, match="an engine or metadata of"):
        hostile.engine(artifact.path, tmp_path)


def test_an_engine_comes_with_its_metadata_and_nothing_else(artifact: Artifact, tmp_path: Path) -> None:
    hostile = RemoteBench("tensorrt", "cuda:0", lambda _: Answer({}, (artifact.path,)), tmp_path / "scratch")
    with pytest.raises(MeasureError, match="1 files for an engine"):
        hostile.engine(artifact.path, tmp_path)


def test_facts_are_those_of_the_machine(far: RemoteBench) -> None:
    assert far.facts() == LocalBench().facts()


def test_a_measurement_from_afar_has_everything_that_one_at_hand_has(artifact: Artifact, far: RemoteBench) -> None:
    here, there = (measure([artifact.path], QUICK, bench=bench)[0] for bench in (LocalBench(), far))
    assert there.sha256 == here.sha256
    assert there.device == here.device
    assert there.runtime == here.runtime
    assert there.distribution.n >= QUICK.min_samples


def test_errors_come_back_as_what_they_were(far: RemoteBench, artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"broken\.onnx"):
        list(far.run(tmp_path / "broken.onnx", batches(1)))
    with pytest.raises(DataError, match="wants shape"):
        list(far.run(artifact.path, [(np.zeros((1, 2), np.float32),)]))
    with pytest.raises(RuntimeMissingError, match="no-such"):
        RemoteBench("no-such", "cpu", far._ask, tmp_path).facts()


@pytest.mark.parametrize(
    ("kind", "request_", "error", "message"),
    [
        ("dance", {}, MeasureError, "does not know work of the kind 'dance'"),
        ("describe", {}, MeasureError, "cannot be understood"),
        ("time", {"models": [[0]], "settings": {"batch": -1}}, Exception, "batch"),
        ("time", {"models": [], "settings": {}}, ModelFileError, "0 models"),
        ("edges", {"models": [[7]], "batch": 1, "runtime": "onnxruntime"}, ModelFileError, "places"),
        ("engine", {"models": [[0]], "runtime": "onnxruntime"}, ModelFileError, "places"),
        ("run", {"runtime": "onnxruntime", "threads": 1, "batches": 1, "inputs": 1}, ModelFileError, "0 files"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    kind: str, request_: dict, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        perform(Question(kind, request_), tmp_path)


def test_weights_beside_a_model_go_with_it(tmp_path: Path) -> None:
    for name, beside in (("a", True), ("b", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name)
        if beside:
            (tmp_path / name / "model.onnx.data").write_text("weights")
    models = [tmp_path / "a/model.onnx", tmp_path / "b/model.onnx"]
    places, files = pack_models(models)
    assert places == [[0, 1], [2]]
    unpacked = unpack_models(places, files, tmp_path / "there")
    assert [path.read_text() for path in unpacked] == ["a", "b"]
    assert unpacked[0].with_name("model.onnx.data").read_text() == "weights"
    assert not unpacked[1].with_name("model.onnx.data").exists()


def test_arrays_that_are_not_there_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npy"
    with path.open("wb") as stream:
        assert write_batches(batches(2, 2), stream) == 2
    with path.open("rb") as stream, pytest.raises(MeasureError, match="cannot be read"):
        list(read_batches(stream, 3, 1))


def test_arrays_of_objects_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with path.open("rb") as stream, pytest.raises(MeasureError, match="cannot be read"):
        list(read_batches(stream, 1, 1))

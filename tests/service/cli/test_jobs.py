"""`shoal jobs`, `shoal analyze` and `shoal strategies` against a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.client import Client
from tests.service.cli.command import Ask
from tests.service.server_process import ServerProcess, Told


def create(server: ServerProcess, path: Path, told: Told) -> str:
    """The id of a new job, finished if that is what it was told."""
    path.write_bytes(b"a model")
    with Client(server.address) as client:
        source = job_pb.ModelSource(pt2_artifact=client.upload(path, pb.ARTIFACT_KIND_MODEL).name)
        job = client.create(model=source, budget=job_pb.Budget(fraction=0.5), display_name="net.pt2", seed=told)
        if told is Told.FINISH:
            list(client.watch(job.name))
    return job.name.rpartition("/")[2]


@pytest.fixture(scope="module")
def job(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    return create(server, tmp_path_factory.mktemp("job") / "net.pt2", Told.FINISH)


def test_the_list_has_a_line_per_job(job: str, ask: Ask) -> None:
    done = ask("jobs", "list")
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["JOB", "STATE", "OUTCOME", "SPEED", "TOOK", "CREATED", "MODEL"]
    row = next(row for row in rows if row.startswith(job))
    assert re.search(r"succeeded +budget met +2\.10x +\d.* net\.pt2$", row)


def test_the_list_as_json(job: str, ask: Ask) -> None:
    done = ask("jobs", "list", "--json", "--limit", "100")
    assert f"optimizationJobs/{job}" in [found["name"] for found in json.loads(done.stdout)]
    assert len(json.loads(ask("jobs", "list", "--json", "--limit", "1").stdout)) == 1


@pytest.mark.parametrize("form", ["{}", "optimizationJobs/{}"])
def test_show_takes_an_id_or_a_name(job: str, form: str, ask: Ask) -> None:
    done = ask("jobs", "show", form.format(job))
    assert done.returncode == 0
    assert "It is within the budget." in done.stdout
    assert f"shoal jobs download {job}" in done.stdout


def test_watching_a_finished_job_exits_like_optimize(job: str, ask: Ask) -> None:
    done = ask("jobs", "watch", job, "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "BUDGET_MET")


def test_download_prints_the_paths(job: str, tmp_path: Path, ask: Ask) -> None:
    done = ask("jobs", "download", job, "--out", tmp_path / "here")
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert tmp_path / "here/model.onnx" in paths
    assert all(path.is_file() for path in paths)


def test_a_job_that_is_not_there_exits_with_2(ask: Ask) -> None:
    for verb in ("show", "watch", "cancel", "download"):
        done = ask("jobs", verb, "nowhere")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "shoal: error: there is no job 'optimizationJobs/nowhere'\n"


def test_a_running_job_can_be_cancelled_and_has_nothing_to_download(
    server: ServerProcess, model: Path, ask: Ask
) -> None:
    running = create(server, model, Told.SLEEP)
    early = ask("jobs", "download", running)
    assert early.returncode == 2
    assert "has no files to download; it is" in early.stderr
    done = ask("jobs", "cancel", running)
    assert re.fullmatch(rf"optimizationJobs/{running}: (cancelling|cancelled)\n", done.stdout)
    assert ask("jobs", "watch", running).returncode == 1


def test_analyze_shows_segments_refusals_and_the_floor(model: Path, ask: Ask) -> None:
    done = ask("analyze", model)
    assert done.returncode == 0, done.stderr
    assert "net.pt2: 5 parameters, 1 activations (relu), 1 segments" in done.stdout
    assert re.search(r"^layer1 +2 +1 +remove$", done.stdout, re.MULTILINE)
    assert re.search(r"^head +last +The head stays\.$", done.stdout, re.MULTILINE)
    assert "Floor: 0.500 ms of 2.00 ms (0.25x)" in done.stdout


def test_analyze_as_json_without_the_floor(model: Path, ask: Ask) -> None:
    document = json.loads(ask("analyze", model, "--no-floor", "--json").stdout)
    assert document["floor"] is None
    assert document["segments"][0]["candidates"] == ["remove"]
    assert document["sites"] == [{"node": "relu", "kind": "relu", "module": "act", "shape": [4, 8, 8]}]


def test_strategies_show_their_options(ask: Ask) -> None:
    done = ask("strategies")
    assert re.search(r"^layerfit: \w", done.stdout, re.MULTILINE)
    assert re.search(r"^  --option \w+=", done.stdout, re.MULTILINE)


def test_strategies_as_json(ask: Ask) -> None:
    names = [each["name"] for each in json.loads(ask("strategies", "--json").stdout)]
    assert names == sorted(names)
    assert "layerfit" in names


def test_files_are_written_for_triton_too(job: str, tmp_path: Path, ask: Ask) -> None:
    flags = ("--out", tmp_path / "out", "--triton", tmp_path / "models", "--triton-name", "net", "--json")
    done = ask("jobs", "download", job, *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["triton"] == str(tmp_path / "models/net")
    assert (tmp_path / "models/net/1/model.onnx").read_bytes() == (tmp_path / "out/model.onnx").read_bytes()
    assert 'name: "net"' in (tmp_path / "models/net/config.pbtxt").read_text()


def test_flags_of_triton_that_do_not_go_together_are_refused(job: str, ask: Ask) -> None:
    for flags, message in (
        (("--triton-name", "x"), "belong to --triton DIR"),
        (("--triton", "x", "--triton-name", "../x"), "is no name of a model"),
    ):
        done = ask("jobs", "download", job, *flags)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr


def test_finished_jobs_and_files_are_deleted(server: ServerProcess, tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "net.pt2"
    done, sleeping = create(server, path, Told.FINISH), create(server, path, Told.SLEEP)
    model = next(each for each in json.loads(ask("artifacts", "list", "--json").stdout) if each["kind"] == "model")
    for refused in (ask("jobs", "delete", done, sleeping), ask("artifacts", "delete", model["name"])):
        assert refused.returncode == 2
        assert f"optimizationJobs/{sleeping}" in refused.stderr
    assert ask("jobs", "show", done).returncode == 2
    assert ask("jobs", "delete", "--force", sleeping).stdout == f"optimizationJobs/{sleeping}: removed\n"


def test_files_are_listed(job: str, ask: Ask) -> None:
    header, *rows = ask("artifacts", "list").stdout.splitlines()
    assert header.split() == ["ARTIFACT", "KIND", "BYTES", "CREATED", "FILE"]
    assert any(re.search(r" result +\d+ .* model\.onnx$", row) for row in rows)
    assert ask("artifacts", "delete", rows[-1].split()[0], "nowhere").returncode == 2

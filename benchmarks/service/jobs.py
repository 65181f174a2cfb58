"""Jobs and dry runs on the files of strangers, and what becomes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, final

from crc32c import crc32c

from benchmarks.fuzz.values import Random, chance
from benchmarks.service.files import Upload, any_job
from benchmarks.service.judging import Judge
from benchmarks.service.messages import fill
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub

_MOST_JOBS: Final = 20
"""That wait or run; more would only wait longer."""
_PIECE: Final = 1 << 20
_DEADLINE: Final = 30.0
_LONG: Final = 120.0


@final
class Jobs:
    """Asks for jobs that are right but for their files, and judges how they end."""

    def __init__(self, stub: ModelOptimizerStub, judge: Judge, random: Random, learn: Callable[[str], None]) -> None:
        """Takes what remembers the names of ended jobs: before, nothing else may end them."""
        self._stub, self._judge, self._random, self._learn = stub, judge, random, learn
        self._sent: dict[str, str] = {}
        self._dry_run: Any = None

    def ask(self, known: list[str]) -> None:
        """Asks for a job on a good model and broken data, or on a broken model; now and then the rest is odd too."""
        if len(self._sent) >= _MOST_JOBS:
            return
        model, data = any_job(self._random)
        spec = job_pb.OptimizationJobSpec()
        if chance(self._random, 0.3):
            fill(spec, self._random, known)
            for part in ("data", "fine_tuning", "preprocessing", "strategy", "target"):
                if chance(self._random, 0.7):
                    spec.ClearField(part)
        if not self._give(spec, model, data):
            return
        spec.budget.CopyFrom(job_pb.Budget(fraction=0.5))
        spec.time_limit.seconds, spec.time_limit.nanos = 60, 0
        request = pb.CreateOptimizationJobRequest(optimization_job=job_pb.OptimizationJob(spec=spec))
        made = self._call("CreateOptimizationJob", request)
        if made is not None:
            self._sent[made.name] = f"{model.filename} and {data.filename if data else 'nothing'}"

    def analyze(self) -> None:
        """Has the server open a model for a dry run; one at a time, and without waiting for it."""
        if self._dry_run is not None:
            return
        model, _ = any_job(self._random)
        name = self._store(model)
        if name is not None:
            source = job_pb.ModelSource(**{f"{model.what}_artifact": name})
            self._dry_run = self._stub.AnalyzeModel.future(pb.AnalyzeModelRequest(model=source), timeout=_LONG)

    def review(self) -> None:
        """Judges the jobs that have ended since it was called last."""
        if self._dry_run is not None and self._dry_run.done():
            self._judge.answer("AnalyzeModel", self._dry_run.result)
            self._dry_run = None
        for name, sent in list(self._sent.items()):
            job = self._call("GetOptimizationJob", pb.GetOptimizationJobRequest(name=name))
            if job is not None and job.HasField("end_time"):
                self._judge.end(job, self._events(name), sent)
                del self._sent[name]
                self._learn(name)

    def _events(self, name: str) -> list[Any]:
        request = pb.WatchOptimizationJobRequest(name=name)
        found = self._judge.answer(
            "WatchOptimizationJob", lambda: list(self._stub.WatchOptimizationJob(request, timeout=_DEADLINE))
        )
        return found or []

    def _call(self, name: str, request: Any) -> Any:
        return self._judge.answer(name, lambda: getattr(self._stub, name)(request, timeout=_DEADLINE))

    def _give(self, spec: job_pb.OptimizationJobSpec, model: Upload, data: Upload | None) -> bool:
        """Stores a job's files and names them in its spec; says whether they could be stored."""
        name = self._store(model)
        if name is None:
            return False
        spec.model.Clear()
        setattr(spec.model, f"{model.what}_artifact", name)
        if data is None:
            return True
        stored, how = self._store(data), json.loads(data.how)
        if stored is None:
            return False
        spec.data.Clear()
        spec.data.train.artifact = stored
        spec.data.train.format = job_pb.DataSplit.Format.Value(how["format"])
        if chance(self._random, 0.3):
            spec.data.validation.artifact = stored
        spec.preprocessing.raw = how["recipe"] == "raw"
        return True

    def _store(self, file: Upload) -> str | None:
        """Sends a file as it should be sent; returns the artifact's name."""
        metadata = pb.UploadMetadata(
            upload_id=f"upload-{int(self._random.integers(10**9))}",
            kind=file.kind,
            filename=file.filename,
            size_bytes=len(file.data),
            sha256=hashlib.sha256(file.data).hexdigest(),
        )
        sent = [pb.UploadArtifactRequest(metadata=metadata)]
        for at in range(0, len(file.data), _PIECE):
            data = file.data[at : at + _PIECE]
            sent.append(pb.UploadArtifactRequest(chunk=pb.UploadChunk(offset=at, data=data, crc32c=crc32c(data))))
        stored = self._judge.answer("UploadArtifact", lambda: self._stub.UploadArtifact(iter(sent), timeout=_DEADLINE))
        return None if stored is None else str(stored.name)

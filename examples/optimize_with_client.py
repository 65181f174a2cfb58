"""Makes a network faster through a Shoal server: upload, create, watch, download.

Run `shoal serve` in another terminal, then for example
`python examples/optimize_with_client.py 127.0.0.1:50051 net.pt2 train.parquet test.parquet`.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from protos.shoal.v1.model_optimizer_pb2 import ARTIFACT_KIND_DATA, ARTIFACT_KIND_MODEL
from protos.shoal.v1.optimization_job_pb2 import Budget, DataReference, DataSplit, ModelSource
from service.client import Client, JobAdvanced, ShoalError


def optimize(address: str, model: str, train: str, validation: str) -> None:
    """Asks for 0.6 of the original's latency and stores the result in `./faster`."""
    with Client(address) as client:
        splits = [client.upload(path, ARTIFACT_KIND_DATA).name for path in (train, validation)]
        job = client.create(
            model=ModelSource(pt2_artifact=client.upload(model, ARTIFACT_KIND_MODEL).name),
            budget=Budget(fraction=0.6),
            data=DataReference(train=DataSplit(artifact=splits[0]), validation=DataSplit(artifact=splits[1])),
            time_limit=timedelta(minutes=30),
        )
        for event in client.watch(job.name):
            if isinstance(event, JobAdvanced):
                print(f"{event.progress.fraction:4.0%}  {event.progress.phase}: {event.progress.message}")
            else:
                job = event.job
        if job.HasField("error"):
            sys.exit(f"{job.error.reason}: {job.error.message}")
        print(job.result.explanation)
        for link in job.result.artifacts:
            print(client.download(link.name, Path("faster") / link.filename))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        optimize(*sys.argv[1:])
    except ShoalError as error:
        sys.exit(str(error))

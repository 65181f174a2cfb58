"""Downloads the files that a job made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb
    from service.client import Client


def fetch_artifacts(client: Client, job: job_pb.OptimizationJob, folder: Path) -> dict[str, str]:
    """Downloads all files of a finished job.

    Args:
        client: The server.
        job: The job.
        folder: Where to put them; made if it does not exist.

    Returns:
        Where each file is, by filename.
    """
    paths = {}
    for link in job.result.artifacts:
        # The name comes from the server: no folder in it may lead out of ours.
        paths[link.filename] = str(client.download(link.name, folder / Path(link.filename).name))
    return paths

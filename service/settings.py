"""What an operator can set. Sizes are bytes, times seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deploy.sandbox import Mode
from service.loopback import is_loopback
from service.watching.logs import Format

_MIB = 1 << 20
_GIB = 1 << 30
MOST_WORKERS: Final[int] = 256
"""Workers of one server, or of one node."""


Seconds = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(gt=0)]


class ServerSettings(BaseModel):
    """One server's configuration.

    Attributes:
        address: Where to listen, `host:port` or `unix:PATH`; port 0 takes a free one.
        tls_cert: Certificate chain, PEM; with it, the server speaks TLS. Read again when it changes.
        tls_key: Its private key, PEM, without a passphrase.
        tls_client_ca: Authorities, PEM, one of which must have signed every client's certificate.
        tls_client_names: The subject's common name of a client's certificate is a principal, and needs no token.
        insecure_remote: Listen on more than this machine without TLS. For networks that are trusted.
        allow_remote: The same, under its former name.
        reflection: Tell callers which services and messages there are.
        metrics_address: Where Prometheus finds metrics over HTTP, `host:port`; None for nowhere.
        web_address: Where browsers find pages of jobs and devices, `host:port`; None for nowhere.
        web_names: Other host names that browsers may call it by, such as a proxy's.
        log_format: Of the server's log and its workers'.
        state_dir: Database, artifacts, uploads and the folders of running jobs. One server at a time.
        database_url: SQLAlchemy URL of SQLite or PostgreSQL, which several servers may share. Default: SQLite in
            `state_dir`.
        storage_url: fsspec URL of the artifact store; servers that share a database share it too. Default: a folder in
            `state_dir`.
        data_roots: Folders on this machine that jobs may read data from.
        workers: Jobs that run at the same time.
        analyses: Dry runs that run at the same time.
        analysis_queue_limit: Dry runs that may wait.
        queue_limit: Jobs that may wait.
        principal_queue_limit: Jobs of one principal that may wait.
        principal_stored_bytes: Size of one principal's files, those on their way included.
        principal_uploads: Unfinished uploads of one principal.
        principal_calls_per_second: Calls of one principal, in the long run.
        principal_burst: Calls of one principal at once, after a pause.
        max_attempts: How often a job may lose its worker to a dead server before it is given up.
        job_lease_seconds: A server that shows no life for so long has lost its jobs to the others.
        job_look_seconds: How often a server looks for what others did to jobs that run or are watched here.
        worker_retries: How often a job whose worker died goes on in another, if it got further than before.
        worker_command: The worker program; reads a WorkOrder on stdin.
        worker_open_files: RLIMIT_NOFILE of a worker.
        worker_file_bytes: RLIMIT_FSIZE of a worker.
        worker_memory_bytes: What a worker may use with its children. Default: 0.9 of the machine, divided by `workers`;
            on a node of a Ray cluster `ray_memory_bytes`, or 0.9 of the node, divided by how many jobs that ask for
            `ray_num_cpus` find room there.
        worker_processes: How many processes a worker may consist of, itself included.
        sandbox: Whether workers are confined by what the system offers (`auto`), only if it offers all (`required`), or
            not at all (`off`).
        hub_downloads: Whether jobs may name published models that the server then downloads.
        worker_log_bytes: What is kept of a worker's stderr.
        executor: Where workers run: `local` for this machine, `ray` for the nodes of a Ray cluster.
        ray_address: `auto` for the cluster that this machine is a part of, `local` for one that is started with the
            server, or the `host:port` of a cluster's head.
        ray_num_cpus: Processors that a job asks Ray for.
        ray_num_gpus: GPUs that a job asks Ray for; one whose target is `local/cuda:N` asks for N + 1 at least.
        ray_memory_bytes: Memory that a job asks Ray for; None for any.
        ray_resources: Resources of the cluster's own that a job asks Ray for, such as the name of a kind of node.
        ray_node_dir: Where nodes keep running jobs' folders and what they measured. Default: below their temporary
            folder.
        ray_silence_seconds: A node that has not heard of its server for so long ends its worker, and a server that
            has not heard of a node gives it up.
        checkpoint_storage: Mirror what running jobs keep into the artifact storage, for attempts on other machines.
            Default: where another machine may run them.
        analysis_seconds: Longest dry run.
        deadline_grace: What a worker gets beyond its time limit to hand in its best before it is killed.
        cancel_grace: From SIGTERM to SIGKILL.
        stop_grace: What open calls get when the server stops.
        heartbeat_seconds: Longest silence on a watch stream.
        progress_interval: Shortest time between two stored progress events of a job.
        max_model_bytes: Largest model file.
        max_weights_bytes: Largest weights file.
        max_data_bytes: Largest data file.
        max_device_answer_bytes: Largest answer of a device's agent to one piece of work.
        min_free_bytes: What an upload must leave free on the disk.
        download_chunk_bytes: Size of a download's chunks.
        commit_bytes: An upload is made durable at least this often.
        upload_retention: Seconds that an unfinished upload is kept.
        job_retention: Seconds that a job is kept after its end, with its events, log and results; None for ever.
        artifact_retention: Seconds that a file is kept after it was last sent or needed by a job; None for ever.
        collect_grace: Bytes in the store that nobody names are left alone for so long after they were written.
        recheck_seconds: How often a call under way has its right to be answered looked at again.
        readiness_interval: How often the server looks whether it can do its work.
        readiness_patience: A check that takes longer than this has failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = "127.0.0.1:50051"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_client_names: bool = False
    insecure_remote: bool = False
    metrics_address: Annotated[str, Field(pattern=r"^.+:\d+$")] | None = None
    web_address: Annotated[str, Field(pattern=r"^.+:\d+$")] | None = None
    web_names: tuple[str, ...] = ()
    log_format: Format = "text"
    allow_remote: bool = False
    reflection: bool = True
    state_dir: Path
    database_url: str | None = None
    storage_url: str | None = None
    data_roots: tuple[Path, ...] = ()
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    analyses: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    analysis_queue_limit: Annotated[int, Field(ge=0)] = 16
    queue_limit: Annotated[int, Field(ge=0)] = 1000
    principal_queue_limit: Annotated[int, Field(ge=0)] = 500
    principal_stored_bytes: Size = 1024 * _GIB
    principal_uploads: Annotated[int, Field(ge=1)] = 100
    principal_calls_per_second: Annotated[float, Field(gt=0)] = 200.0
    principal_burst: Annotated[int, Field(ge=1)] = 1000
    max_attempts: Annotated[int, Field(ge=1)] = 5
    job_lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    job_look_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    worker_retries: Annotated[int, Field(ge=0)] = 2
    # -P: the working directory is the job's folder, and nothing in there may be imported.
    worker_command: Annotated[tuple[str, ...], Field(min_length=1)] = (sys.executable, "-P", "-m", "service.worker")
    worker_open_files: Annotated[int, Field(ge=64)] = 4096
    worker_file_bytes: Size = 64 * _GIB
    worker_memory_bytes: Size | None = None
    worker_processes: Annotated[int, Field(ge=1)] = 512
    sandbox: Mode = "auto"
    hub_downloads: bool = True
    worker_log_bytes: Size = 8 * _MIB
    executor: Literal["local", "ray"] = "local"
    ray_address: Annotated[str, Field(min_length=1)] = "auto"
    ray_num_cpus: Annotated[float, Field(ge=0)] = 1.0
    ray_num_gpus: Annotated[float, Field(ge=0)] = 0.0
    ray_memory_bytes: Size | None = None
    ray_resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    ray_node_dir: Path | None = None
    ray_silence_seconds: Seconds = 30.0
    checkpoint_storage: bool | None = None
    analysis_seconds: Seconds = 600.0
    deadline_grace: Seconds = 120.0
    cancel_grace: Seconds = 3.0
    stop_grace: Seconds = 5.0
    heartbeat_seconds: Annotated[float, Field(gt=0, le=15)] = 10.0
    progress_interval: Annotated[float, Field(ge=0)] = 0.5
    max_model_bytes: Size = 4 * _GIB
    max_weights_bytes: Size = 4 * _GIB
    max_data_bytes: Size = 64 * _GIB
    max_device_answer_bytes: Size = 4 * _GIB
    min_free_bytes: Annotated[int, Field(ge=0)] = 256 * _MIB
    download_chunk_bytes: Annotated[int, Field(ge=1024, le=_MIB)] = 512 * 1024
    commit_bytes: Size = 16 * _MIB
    upload_retention: Seconds = 7 * 86400.0
    job_retention: Seconds | None = None
    artifact_retention: Seconds | None = None
    collect_grace: Annotated[float, Field(ge=0)] = 3600.0
    recheck_seconds: Annotated[float, Field(gt=0, le=60)] = 30.0
    readiness_interval: Seconds = 5.0
    readiness_patience: Seconds = 5.0

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("data_roots")
    @classmethod
    def _existing_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in value:
            if not root.is_dir():
                raise ValueError(f"{root} is not a folder")
        return tuple(root.resolve() for root in value)

    @model_validator(mode="after")
    def _tls_whole(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; give both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca asks clients for certificates, which takes TLS: tls_cert and tls_key")
        if self.tls_client_names and self.tls_client_ca is None:
            raise ValueError("tls_client_names takes names from clients' certificates, which tls_client_ca asks for")
        return self

    @model_validator(mode="after")
    def _local_unless_allowed(self) -> ServerSettings:
        if self.remote and self.tls_cert is None and not (self.insecure_remote or self.allow_remote):
            raise ValueError(
                f"address {self.address} can be reached from other machines, and without TLS everything can be read on "
                "the way; listen on 127.0.0.1, give tls_cert and tls_key, or set insecure_remote if the network is "
                "trusted"
            )
        trusted = self.insecure_remote or self.allow_remote
        if self.metrics_address is not None and not trusted and not is_loopback(self.metrics_address):
            raise ValueError(
                f"metrics_address {self.metrics_address} can be reached from other machines, and anybody may read "
                "there; use 127.0.0.1, or set insecure_remote if the network is trusted"
            )
        if self.web_remote and self.tls_cert is None and not trusted:
            raise ValueError(
                f"web_address {self.web_address} can be reached from other machines, and without TLS everything can be "
                "read on the way; use 127.0.0.1, give tls_cert and tls_key, or set insecure_remote if the network is "
                "trusted"
            )
        return self

    @property
    def web_remote(self) -> bool:
        """Whether other machines can reach its pages."""
        return self.web_address is not None and not is_loopback(self.web_address)

    @property
    def remote(self) -> bool:
        """Whether other machines can reach it."""
        return not is_loopback(self.address)

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.state_dir / 'shoal.db'}"

    @property
    def storage(self) -> str:
        """The fsspec URL of the artifact store."""
        return self.storage_url or f"file://{self.state_dir / 'artifacts'}"

    @property
    def mirrors_checkpoints(self) -> bool:
        """Whether what running jobs keep is mirrored into the artifact storage."""
        if self.checkpoint_storage is not None:
            return self.checkpoint_storage
        shared = not (self.database.startswith("sqlite") and self.storage.startswith("file://"))
        return shared or self.executor == "ray"

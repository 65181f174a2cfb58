"""One server: its parts, its start, its end."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
from asyncio import to_thread
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, final

import grpc
from google.longrunning.operations_pb2_grpc import add_OperationsServicer_to_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1.device_agents_pb2_grpc import add_DeviceAgentsServicer_to_server
from protos.shoal.v1.model_optimizer_pb2_grpc import add_ModelOptimizerServicer_to_server
from service.access.gate import Gate, write_operator_token
from service.access.rates import RateLimit
from service.access.tokens import TokenStore
from service.database.database import Database
from service.devices.agents import AgentStore
from service.devices.desk import Desk
from service.devices.files import WorkFiles
from service.devices.work import WorkStore
from service.errors import ListenError, StateInUseError
from service.jobs.leases import Holder, runner_of
from service.jobs.removal import Removal
from service.jobs.store import JobStore
from service.server import agents, operations
from service.server.access import AccessInterceptor
from service.server.hub import Hub
from service.server.interceptor import ErrorInterceptor
from service.server.keeping import Keeper
from service.server.lookout import Lookout
from service.server.readiness import Readiness, checks
from service.server.servicer import Parts, Servicer
from service.server.sweep import sweep
from service.server.tls import server_credentials
from service.server.watching import WatchingInterceptor
from service.settings import ServerSettings
from service.storage.artifacts import ArtifactStore
from service.storage.disk import disk_errors
from service.storage.storage import Storage
from service.supervision.supervisor import Supervisor
from service.uploads.uploads import Uploads
from service.watching.census import Census
from service.watching.jobs import JobWatch
from service.watching.meter import Meter, Unmeasured
from service.worker.confinement import check_sandbox

if TYPE_CHECKING:
    from service.web.serving import WebServer

SERVICE_NAME: str = service_pb.DESCRIPTOR.services_by_name["ModelOptimizer"].full_name
MAX_MESSAGE = 4 << 20
WINDOW = 4 << 20
"""Bytes of one upload that may be under way. Left to itself, gRPC lets it grow until uploads wait in our memory, not at
their clients; this much still carries 80 MB/s over a line that takes 50 ms there and back."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # Two servers on one port would share its calls at random.
    ("grpc.so_reuseport", 0),
    # Quiet calls are normal (an analysis that waits): let clients ping, and find out about those that are gone.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW),
)

_LOG = logging.getLogger(__name__)


@final
class Server:
    """A server that was created but not started yet, or is running, or was stopped. It cannot be started twice."""

    def __init__(self, settings: ServerSettings) -> None:
        """Opens nothing before `start`."""
        self._settings = settings
        self._opened = ExitStack()
        self._grpc: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._supervisor: Supervisor | None = None
        self._hub: Hub | None = None
        self._lookout: Lookout | None = None
        self._keeper: Keeper | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._readiness: Readiness | None = None
        self._meter: Meter = Unmeasured()
        self._web: WebServer | None = None
        self.metrics_port: int | None = None
        self.web_port: int | None = None

    async def start(self) -> int:
        """Opens the state folder, takes up what is left to do, and listens.

        Returns:
            The port, 0 for a Unix socket.

        Raises:
            StateInUseError: Another server uses the state folder.
            StateVersionError: Another version of Shoal wrote it.
            DiskFullError: There is no room.
            DatabaseUnavailableError: The database cannot be opened.
            ListenError: The address cannot be listened on.
            StorageSettingError: There is no storage where the settings say.
            StorageUnavailableError: The storage does not answer.
            TlsError: The certificates cannot be used.
            SandboxError: Workers cannot be confined here, and the settings require it.
            ExecutorError: Jobs cannot be run where the settings say.
        """
        try:
            parts = await self._open()
            self._grpc, port = self._bind(parts)
            self.web_port = await self._show(parts)
            await parts.supervisor.start()
            self._lookout = Lookout(self._settings, parts.jobs, parts.supervisor, parts.hub)
            self._lookout.start()
            assert self._readiness is not None
            await self._readiness.start()
            await self._grpc.start()
            assert self._keeper is not None
            self._sweeper = asyncio.create_task(sweep(self._keeper.tidy, self._keeper.pause))
        except BaseException:
            await self.stop(0)
            raise
        _LOG.info("listening on %s, port %d", self._settings.address, port)
        return port

    async def _open(self) -> Parts:
        settings = self._settings
        check_sandbox(settings)
        with disk_errors("the state folder"):
            settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._opened.callback(_lock(settings.state_dir))
        database = await to_thread(Database, settings.database)
        self._opened.callback(database.close)
        self._hub = Hub(asyncio.get_running_loop())
        self._meter = self._measure(database)
        watch = JobWatch(database, self._meter)
        holder = Holder(runner_of(settings.state_dir), settings.job_lease_seconds)
        jobs = JobStore(database, self._hub.publish, watch.ended, holder)
        storage = await to_thread(Storage, settings.storage)
        self._readiness = Readiness(checks(settings, database, storage), settings, self._meter, self._tell_health)
        artifacts = ArtifactStore(database, storage)
        uploads = await to_thread(Uploads, database, artifacts, settings)
        self._keeper = Keeper(settings, database, storage, uploads, self._meter)
        desk = Desk(AgentStore(database), WorkStore(database), WorkFiles(storage))
        self._supervisor = Supervisor(settings, jobs, artifacts, desk, watch)
        self._opened.callback(self._supervisor.close)
        gate = await to_thread(self._make_gate, TokenStore(database))
        removal = Removal(database, settings.state_dir / "jobs")
        return Parts(settings, jobs, artifacts, uploads, self._supervisor, self._hub, desk, gate, removal)

    def _make_gate(self, tokens: TokenStore) -> Gate:
        settings = self._settings
        if settings.remote and settings.tls_cert is None:
            _LOG.warning("without TLS, whatever is sent, tokens included, can be read on its way")
        if settings.remote and not settings.tls_client_names and not tokens.any():
            _LOG.warning("there are no tokens, so all calls will be refused; `shoal tokens add NAME` makes one")
        return Gate(
            tokens,
            local_only=not settings.remote,
            certificate_names=settings.tls_client_names,
            operator=write_operator_token(settings.state_dir),
        )

    def _measure(self, database: Database) -> Meter:
        """Returns what counts; where metrics are asked for, they can be had from now on."""
        address = self._settings.metrics_address
        if address is None:
            return Unmeasured()
        # Only who asks for metrics needs the library.
        from service.watching.prometheus import CensusCollector, Exposition, PrometheusMeter

        meter = PrometheusMeter()
        meter.registry.register(CensusCollector(Census(database, self._settings.state_dir)))
        exposition = Exposition(meter.registry, address)
        self._opened.callback(exposition.close)
        self.metrics_port = exposition.port
        _LOG.info("metrics on %s, port %d", address, exposition.port)
        return meter

    async def _show(self, parts: Parts) -> int | None:
        """Opens the site where it is asked for; returns its port."""
        address = self._settings.web_address
        if address is None:
            return None
        try:
            from service.web.serving import WebServer
            from service.web.site import make_site
        except ModuleNotFoundError as exc:
            raise ListenError(
                f"pages for browsers on {address} need {exc.name}, which is not installed; install shoal[web]"
            ) from exc
        self._web = WebServer(make_site(parts, self._meter), self._settings)
        port = await self._web.start()
        _LOG.info("pages on %s://%s", self._web.scheme, _dialled(address, port))
        return port

    async def _tell_health(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in (SERVICE_NAME, agents.SERVICE_NAME):
            await self._health.set(name, status.SERVING if ready else status.NOT_SERVING)

    def _bind(self, parts: Parts) -> tuple[grpc.aio.Server, int]:
        settings = self._settings
        ours = (SERVICE_NAME, agents.SERVICE_NAME, operations.SERVICE_NAME)
        rates = RateLimit(settings.principal_calls_per_second, settings.principal_burst)
        # The first is the outermost: it counts what the second makes of what the third one raises.
        interceptors = (
            WatchingInterceptor(self._meter, *ours),
            ErrorInterceptor(*ours),
            AccessInterceptor(parts.gate, rates, settings.recheck_seconds),
        )
        server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        servicer = Servicer(parts)
        add_ModelOptimizerServicer_to_server(servicer, server)
        add_OperationsServicer_to_server(operations.OperationsServicer(servicer), server)
        incoming = settings.state_dir / "device-answers"
        shutil.rmtree(incoming, ignore_errors=True)  # what a server that was killed had half received
        most = settings.max_device_answer_bytes
        add_DeviceAgentsServicer_to_server(agents.AgentsServicer(parts.desk, incoming, most), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            reflection.enable_server_reflection((*ours, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        credentials = server_credentials(settings)
        try:
            if credentials is None:
                return server, server.add_insecure_port(settings.address)
            return server, server.add_secure_port(settings.address, credentials)
        except RuntimeError as exc:
            raise ListenError(f"cannot listen on {settings.address}: is it in use, or not ours?") from exc

    async def stop(self, grace: float | None = None) -> None:
        """Stops: health says NOT_SERVING, watchers are sent away, running jobs go back to the queue, calls end.

        Args:
            grace: Seconds that open calls get; default: the setting.
        """
        await self._health.enter_graceful_shutdown()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._readiness is not None:
            await self._readiness.stop()
        if self._hub is not None:
            self._hub.close()
        if self._supervisor is not None:
            await self._supervisor.drain()
        if self._lookout is not None:
            await self._lookout.stop()
        if self._web is not None:
            await self._web.stop()
        if self._grpc is not None:
            await self._grpc.stop(self._settings.stop_grace if grace is None else grace)
        self._opened.close()

    async def wait(self) -> None:
        """Waits until the server was stopped."""
        if self._grpc is not None:
            await self._grpc.wait_for_termination()


def create(settings: ServerSettings) -> Server:
    """Returns a server that is not started yet."""
    return Server(settings)


def serve(settings: ServerSettings, on_ready: Callable[[str], None] = lambda _address: None) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Blocks; to be called in the main thread.

    Args:
        settings: The configuration.
        on_ready: Called once calls are answered, with the address to dial.

    Raises:
        ServiceError: See `Server.start`.
    """
    asyncio.run(_serve(settings, on_ready))


async def _serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    server = create(settings)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    port = await server.start()
    on_ready(_dialled(settings.address, port))
    await asked.wait()
    _LOG.info("stopping")
    await server.stop()


def _dialled(address: str, port: int) -> str:
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def _lock(folder: Path) -> Callable[[], None]:
    """Takes the state folder for this process; returns what lets go of it."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise StateInUseError(
            f"another server uses the state folder {folder}; stop it, or give this one another folder"
        ) from exc
    return lambda: os.close(handle)

"""`shoal health`: whether a server takes calls, for containers and people."""

from __future__ import annotations

from typing import Final

import click

from service.cli.errors import CommandError, Status
from service.cli.security import given, security_options
from service.cli.serve import DEFAULT_ADDRESS

_SERVICE: Final = "shoal.v1.ModelOptimizer"


@click.command()
@click.option("--server", metavar="HOST:PORT", envvar="SHOAL_SERVER", default=DEFAULT_ADDRESS, show_default=True)
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=5.0, show_default=True, help="Seconds to wait.")
@security_options
def health(server: str, timeout: float) -> int:
    """Ask whether a server takes calls (gRPC health protocol).

    Exits with 0 if it does and with 1 if it does not. No server is started for this.
    """
    try:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        from service.client.channel import Access, open_channel
    except ModuleNotFoundError as exc:
        raise CommandError(f"this needs {exc.name}, which is not installed; install shoal[server]") from exc
    # Health is told to everybody, so no token is sent.
    with open_channel(server, Access(credentials=given().credentials())) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=_SERVICE), timeout=timeout
            )
        except grpc.RpcError as exc:
            raise CommandError(f"{server} does not answer: {exc.code().name}") from exc
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if state != "SERVING":
        raise CommandError(f"{server} answers {state}")
    click.echo(state)
    return Status.DONE

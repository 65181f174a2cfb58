"""Lets in who may call, at one place for all calls, and tells the servicer who it is."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final

import grpc

from service.access.gate import Gate, Shown
from service.access.principal import Principal, Scope
from service.access.rates import RateLimit
from service.errors import ForbiddenError
from service.server.interceptor import rewrap
from service.server.recheck import kept, kept_stream

SCOPES: Final[Mapping[str, Mapping[str, Scope]]] = MappingProxyType(
    {
        "shoal.v1.ModelOptimizer": {
            "CreateOptimizationJob": Scope.JOBS_WRITE,
            "GetOptimizationJob": Scope.JOBS_READ,
            "ListOptimizationJobs": Scope.JOBS_READ,
            "CancelOptimizationJob": Scope.JOBS_WRITE,
            "WatchOptimizationJob": Scope.JOBS_READ,
            "UploadArtifact": Scope.ARTIFACTS_WRITE,
            "GetUploadStatus": Scope.ARTIFACTS_WRITE,
            "DownloadArtifact": Scope.JOBS_READ,
            "ListDevices": Scope.JOBS_READ,
            "ListStrategies": Scope.JOBS_READ,
            "AnalyzeModel": Scope.JOBS_WRITE,
            "DeleteOptimizationJob": Scope.JOBS_WRITE,
            "ListArtifacts": Scope.JOBS_READ,
            "DeleteArtifact": Scope.ARTIFACTS_WRITE,
        },
        # The same jobs under other names.
        "google.longrunning.Operations": {
            "ListOperations": Scope.JOBS_READ,
            "GetOperation": Scope.JOBS_READ,
            "WaitOperation": Scope.JOBS_READ,
            "CancelOperation": Scope.JOBS_WRITE,
            "DeleteOperation": Scope.JOBS_WRITE,
        },
    }
)
"""What each method needs, by service. A method that is missing here is for admins only, as a whole service is."""

UNGUARDED: Final = frozenset(
    {
        "shoal.v1.DeviceAgents",  # asks for tokens of its own
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)
"""Services that answer for themselves."""

_CALLER: ContextVar[Principal] = ContextVar("caller")

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]


def caller() -> Principal:
    """Returns who made the call that is being answered. For handlers behind an `AccessInterceptor` only."""
    return _CALLER.get()


@final
class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Stands before the methods of all services but those in `UNGUARDED`."""

    def __init__(self, gate: Gate, rates: RateLimit, recheck: float) -> None:
        """Guards a server.

        Args:
            gate: Knows who calls.
            rates: Counts calls.
            recheck: Seconds after which a call that is still being answered has to be let in again.
        """
        self._gate, self._rates, self._recheck = gate, rates, recheck

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler, guarded."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.removeprefix("/").partition("/")
        if handler is None or service in UNGUARDED:
            return handler
        scope = SCOPES.get(service, {}).get(method, Scope.ADMIN)
        return rewrap(handler, lambda then: self._unary(then, scope), lambda then: self._streaming(then, scope))

    def _unary(self, then: Callable[[Any, Context], Awaitable[Any]], scope: Scope) -> Any:
        async def call(request: Any, context: Context) -> Any:
            await self._admit(context, scope)
            return await kept(then(request, context), lambda: self._look(context, scope), self._recheck)

        return call

    def _streaming(self, then: Callable[[Any, Context], AsyncIterator[Any]], scope: Scope) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            await self._admit(context, scope)
            async for response in kept_stream(
                then(request, context), lambda: self._look(context, scope), self._recheck
            ):
                yield response

        return call

    async def _admit(self, context: Context, scope: Scope) -> None:
        """Notes who calls.

        Raises:
            UnauthenticatedError: Nobody knows.
            ForbiddenError: They may not.
            QuotaError: They call too often.
        """
        principal = await self._look(context, scope)
        self._rates.take(principal.name)
        _CALLER.set(principal)

    async def _look(self, context: Context, scope: Scope) -> Principal:
        """Returns who calls; see `_admit`."""
        principal = await to_thread(self._gate.admit, _shown(context))
        if not principal.may(scope):
            raise ForbiddenError(
                f"{principal.name} may not do this: it takes the scope {scope}, which this token does not have"
            )
        return principal


def _shown(context: Context) -> Shown:
    found = dict(context.invocation_metadata() or ()).get("authorization", "")
    header = found.decode(errors="replace") if isinstance(found, bytes) else found
    names = [name.decode(errors="replace") for name in context.auth_context().get("x509_common_name", ())]
    return Shown(header, names[0] if names else None)

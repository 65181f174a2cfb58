"""Sends spans to an OpenTelemetry collector, where the standard OTEL_* variables ask for it.

Without them, nothing of OpenTelemetry is imported. Sampling, resource, batching, endpoint, headers and certificates are
what OpenTelemetry's SDK reads from its variables.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from service.watching.spans import FinishedSpan, Kind, set_sink

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.trace import SpanContext

_LOG = logging.getLogger(__name__)
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracesError(Exception):
    """Traces are asked for and cannot be sent; the message is fit for the user."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Returns whether the OTEL_* variables ask for traces: an endpoint, or `OTEL_TRACES_EXPORTER=otlp`.

    Raises:
        TracesError: They ask for a way to send them that there is not.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise TracesError(f"OTEL_TRACES_EXPORTER is '{exporter}', and Shoal sends traces by 'otlp' only (or 'none')")
    if exporter != "otlp" and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        raise TracesError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is '{protocol}', and Shoal speaks 'grpc' only; point the endpoint at the "
            "collector's gRPC port (4317)"
        )
    return True


def start_export(service_name: str, environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Starts to send this process's spans, if that is asked for.

    Args:
        service_name: How the process is called in traces, unless OTEL_SERVICE_NAME says otherwise.
        environment: The variables; what the SDK reads itself it takes from the process's own.

    Returns:
        What sends the rest and ends it; does nothing where nothing was asked for.

    Raises:
        TracesError: It cannot be done; the message says what to do.
    """
    if not wanted(environment):
        return _nothing
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as exc:
        raise TracesError(
            f"the OTEL_* variables ask for traces, which need {exc.name}, which is not installed; install shoal[otel]"
        ) from exc
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": service_name}
    provider = TracerProvider(resource=Resource.create(named))
    processor = BatchSpanProcessor(OTLPSpanExporter())
    set_sink(
        lambda span: processor.on_end(_written(span, provider.resource)),
        lambda trace_id, name: _is_sampled(provider, trace_id, name),
    )
    _LOG.info("traces are sent to an OpenTelemetry collector")

    def stop() -> None:
        set_sink(None)
        processor.shutdown()  # type: ignore[no-untyped-call]

    return stop


def _nothing() -> None:
    """Ends what never began."""


def _is_sampled(provider: TracerProvider, trace_id: str, name: str) -> bool:
    decision = provider.sampler.should_sample(None, int(trace_id, 16), name).decision
    return bool(decision.is_sampled())  # type: ignore[no-untyped-call]


def _written(span: FinishedSpan, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanKind, Status, StatusCode

    kinds: dict[Kind, SpanKind] = {
        "internal": SpanKind.INTERNAL,
        "server": SpanKind.SERVER,
        "client": SpanKind.CLIENT,
    }
    return ReadableSpan(
        name=span.name,
        context=_context(span.place.trace_id, span.place.span_id),
        parent=_context(span.place.trace_id, span.parent_id) if span.parent_id else None,
        resource=resource,
        attributes=span.attributes,
        kind=kinds[span.kind],
        instrumentation_scope=InstrumentationScope("shoal"),
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

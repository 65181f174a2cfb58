"""Python and the packages that Shoal's parts need."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from service.doctor.finding import Finding, Level
from service.watching.export import TracesError, wanted

_OLDEST: Final = (3, 11)

NEEDED: Final = {
    "base": ("grpcio", "protobuf", "pydantic", "crc32c"),
    "server": ("torch", "onnx", "onnxruntime", "sqlalchemy", "fsspec", "timm", "pyarrow", "grpcio-health-checking"),
    "openvino": ("openvino",),
    "huggingface": ("transformers", "diffusers"),
    "ray": ("ray",),
    "otel": ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc"),
}
"""What the distribution's extras bring, as far as it tells one that is there from one that is not."""

_WITHOUT: Final = {
    "base": "no command works",
    "server": "this machine can ask a server elsewhere, but run none",
    "openvino": "OpenVINO cannot be a target's runtime here",
    "huggingface": "models of the transformers and diffusers libraries cannot be read here",
    "ray": "jobs cannot be run on a Ray cluster",
    "otel": "traces cannot be sent",
}


def look_at_python() -> Iterator[Finding]:
    """Yields the interpreter."""
    here = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    new = sys.version_info >= _OLDEST
    yield Finding(
        "packages", "python", Level.OK if new else Level.FAIL, here, advice="" if new else "use 3.11 or later"
    )


def look_at_packages() -> Iterator[Finding]:
    """Yields each extra, whole or with what it lacks."""
    for extra, names in NEEDED.items():
        versions = {name: installed_version(name) for name in names}
        missing = [name for name, found in versions.items() if found is None]
        there = ", ".join(f"{name} {found}" for name, found in versions.items() if found is not None)
        if not missing:
            yield Finding("packages", extra, Level.OK, there)
            continue
        level = Level.FAIL if extra == "base" else Level.WARN
        advice = "install shoal" if extra == "base" else f"install shoal[{extra}], if that is wanted"
        yield Finding("packages", extra, level, f"not installed: {', '.join(missing)}", _WITHOUT[extra], advice)


def look_at_traces() -> Iterator[Finding]:
    """Yields whether traces are asked for by OpenTelemetry's variables, and can be sent."""
    try:
        asked = wanted(os.environ)
    except TracesError as exc:
        yield Finding("traces", "export", Level.WARN, str(exc), "no traces are sent")
        return
    if not asked:
        meaning = "set OTEL_EXPORTER_OTLP_ENDPOINT to send them"
        yield Finding("traces", "export", Level.OK, "not asked for by OTEL_* variables", meaning)
    elif any(installed_version(name) is None for name in NEEDED["otel"]):
        found = "asked for by OTEL_* variables, and packages are missing"
        yield Finding("traces", "export", Level.WARN, found, "no traces are sent", "install shoal[otel]")
    else:
        yield Finding("traces", "export", Level.OK, "sent as the OTEL_* variables say")


def installed_version(name: str) -> str | None:
    """Returns the version of an installed distribution; None where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None

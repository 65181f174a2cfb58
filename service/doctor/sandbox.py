"""What this machine confines workers and agents' work with."""

from __future__ import annotations

from collections.abc import Iterator

from service.doctor.finding import Finding, Level


def look_at_sandbox() -> Iterator[Finding]:
    """Yields each layer."""
    from deploy.sandbox import probe

    for layer in probe():
        if layer.present:
            version = f"version {layer.version}" if layer.version else "there"
            yield Finding("sandbox", layer.name, Level.OK, f"{version}; keeps workers from {layer.forbids}")
        else:
            meaning = f"workers are not kept from {layer.forbids} by it"
            yield Finding("sandbox", layer.name, Level.WARN, f"missing: {layer.missing}", meaning)

"""`shoal batch --dry-run`: what would be done, as text or JSON."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from service.cli import figures, table
from service.cli.batch import Request, found_in
from service.cli.connect import ServerFlags, connected, tell
from service.cli.errors import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.batch.dry import Look, Planned
    from service.batch.prepare import Source
    from service.client import Client
    from service.registries import Entry, ModelSettings, Registry


def dry_run(request: Request, registry: Registry, settings: ModelSettings, server: ServerFlags) -> int:
    """Prints what a batch would do, and returns what to exit with."""
    from service.batch.ledger import Ledger
    from service.batch.prepare import Source

    entries = found_in(registry)
    with Ledger(request.out, read_only=True) as ledger:
        source = Source(registry, settings, registry.defaults, ledger)
        if request.analyze:
            with connected(server, tell) as client:
                planned = _planned(request, source, entries, _looking(client))
        else:
            planned = _planned(request, source, entries, None)
    if request.as_json:
        click.echo("\n".join(json.dumps({"event": "planned", **asdict(one)}) for one in planned))
    else:
        click.echo(plan_text(planned))
    return Status.USAGE if any(one.what == "refused" for one in planned) else Status.DONE


def _planned(request: Request, source: Source, entries: Sequence[Entry], look: Look | None) -> list[Planned]:
    from service.batch.dry import plan

    with ThreadPoolExecutor(max_workers=request.jobs) as pool:
        return list(pool.map(lambda entry: plan(source, source.ledger, entry, look), entries))


def _looking(client: Client) -> Look:
    from service.batch.prepare import Files, Prepared
    from service.cli.request import budget, model_source, target
    from service.cli.send import send_model
    from service.client import ShoalError

    def look(prepared: Prepared, files: Files) -> str:
        model = prepared.wanted.model_flags(files.fetched)
        try:
            uploaded = send_model(client, model, lambda _: None)
            flags = prepared.wanted.target
            found = client.analyze(model_source(model, uploaded), target=target(flags), budget=budget(None, flags))
        except ShoalError as exc:
            return f"the server would refuse it: {exc.message}"
        floor = f", floor {found.floor.floor_ms / found.floor.baseline_ms:.2f}x" if found.HasField("floor") else ""
        return f"{len(found.sites)} activations, {len(found.segments)} segments{floor}"

    return look


def plan_text(planned: Sequence[Planned]) -> str:
    """Returns what would be done as a table, with a line that counts it."""
    rows = [
        (
            one.label,
            one.what,
            one.budget,
            figures.data_size(one.size) if one.size else "",
            one.identity[:12],
            one.reason,
        )
        for one in planned
    ]
    lines = table.lines(("MODEL", "WOULD BE", "BUDGET", "SIZE", "IDENTITY", ""), rows)
    counts = {what: sum(one.what == what for one in planned) for what in ("new", "under way", "done", "refused")}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return "\n".join([*lines, "", f"{told}. Nothing was done."])

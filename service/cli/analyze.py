"""`shoal analyze`: what could be cut from a model, what not and why, and how fast it could get at best."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import click

from service.cli import figures, table
from service.cli.connect import ServerFlags, connected, tell
from service.cli.errors import Status
from service.cli.options import json_option, model_options, pick, server_option, target_options
from service.cli.precision import name_of
from service.cli.request import ModelFlags, TargetFlags, budget, check_model, model_source, target

if TYPE_CHECKING:
    from protos.shoal.v1 import model_optimizer_pb2 as pb


@click.command()
@model_options
@target_options
@click.option("--no-floor", is_flag=True, help="Time nothing; the answer comes in seconds.")
@json_option
@server_option
def analyze(**flags: Any) -> int:
    """Show what could be cut from MODEL, without doing it.

    MODEL is a .pt2 file written by torch.export.save, an .onnx file (with its external data beside it, or a zip or tar
    of both), a folder (or a zip or tar of it) that transformers or diffusers saved, or a name: timm:NAME,
    torchvision:NAME, transformers:NAME or diffusers:NAME.
    """
    from service.cli.send import send_model

    model: ModelFlags = pick(ModelFlags, flags)
    target_flags: TargetFlags = pick(TargetFlags, flags)
    check_model(model)
    with connected(pick(ServerFlags, flags), tell) as client:
        uploaded = send_model(client, model, lambda _: None)
        tell("looking at the network" if flags["no_floor"] else "looking at the network and timing its floor")
        found = client.analyze(
            model_source(model, uploaded),
            target=target(target_flags),
            budget=budget(None, target_flags),
            skip_floor=flags["no_floor"],
        )
    click.echo(json.dumps(as_json(found), indent=2) if flags["as_json"] else text(found, model.label))
    return Status.DONE


def as_json(found: pb.AnalyzeModelResponse) -> dict[str, Any]:
    """Returns the analysis as the documented JSON object."""
    floor = found.floor
    return {
        "parameters": found.parameters,
        "sites": [
            {"node": site.node, "kind": site.kind, "module": site.module, "shape": list(site.shape)}
            for site in found.sites
        ],
        "segments": [
            {
                "name": segment.name,
                "entry": segment.entry,
                "exit": segment.exit,
                "candidates": list(segment.candidates),
                "sites": list(segment.sites),
                "operators": segment.operators,
            }
            for segment in found.segments
        ],
        "refusals": [
            {"where": refusal.where, "code": refusal.code, "reason": refusal.reason} for refusal in found.refusals
        ],
        "floor": {
            "baseline_ms": floor.baseline_ms,
            "floor_ms": floor.floor_ms,
            "seconds": floor.elapsed.ToTimedelta().total_seconds(),
            "precision": name_of(floor.precision) if floor.precision else None,
            "precisions": [_precision_json(each) for each in floor.precisions],
        }
        if found.HasField("floor")
        else None,
    }


def _precision_json(found: pb.PrecisionFloor) -> dict[str, Any]:
    return {
        "precision": name_of(found.precision),
        "computes": name_of(found.computes),
        "original_ms": found.original_ms if found.HasField("original_ms") else None,
        "floor_ms": found.floor_ms if found.HasField("floor_ms") else None,
        "refusal": found.refusal or None,
    }


def text(found: pb.AnalyzeModelResponse, label: str) -> str:
    """Returns the analysis as text for people."""
    kinds = ", ".join(sorted({site.kind for site in found.sites})) or "none"
    sizes = f"{figures.large(found.parameters)} parameters, {len(found.sites)} activations ({kinds})"
    lines = [f"{label}: {sizes}, {len(found.segments)} segments that may be replaced"]
    if found.segments:
        replaceable = [
            (segment.name, str(segment.operators), str(len(segment.sites)), ", ".join(segment.candidates))
            for segment in found.segments
        ]
        lines += ["", *table.lines(("SEGMENT", "OPERATORS", "ACTIVATIONS", "CANDIDATES"), replaceable)]
    if found.refusals:
        refused = [(refusal.where, refusal.code, refusal.reason) for refusal in found.refusals]
        lines += ["", *table.lines(("NOT TO BE CUT", "CODE", "REASON"), refused)]
    if found.HasField("floor"):
        lines += ["", _floor_line(found.floor), *_precision_lines(found.floor)]
    return "\n".join(lines)


def _floor_line(floor: pb.FloorEstimate) -> str:
    share = f"{floor.floor_ms / floor.baseline_ms:.2f}x" if floor.baseline_ms > 0 else "-"
    took = figures.clock(floor.elapsed.ToTimedelta().total_seconds())
    # Servers that say nothing of precisions know fp32 only.
    precision = name_of(floor.precision) if floor.precision else "fp32"
    within = f" in {precision}" if precision != "fp32" else ""
    return (
        f"Floor: {figures.milliseconds(floor.floor_ms)}{within} of {figures.milliseconds(floor.baseline_ms)} ({share}) "
        f"if all that can go went; no budget below that can be met. Estimated in {took}."
    )


def _precision_lines(floor: pb.FloorEstimate) -> list[str]:
    """Returns a line for each precision, and what none of them says; none where only fp32 may ship."""
    if len(floor.precisions) < 2:
        return []
    rows = [
        (name_of(each.precision), _time(each, "original_ms"), _time(each, "floor_ms"), _remark(each))
        for each in floor.precisions
    ]
    lines = table.lines(("PRECISION", "UNCUT", "FLOOR", ""), rows)
    return ["", *lines, "Whether a precision is good enough takes samples to tell; a job does."]


def _time(found: pb.PrecisionFloor, field: Literal["original_ms", "floor_ms"]) -> str:
    return figures.milliseconds(getattr(found, field)) if found.HasField(field) else "-"


def _remark(found: pb.PrecisionFloor) -> str:
    if found.refusal:
        return found.refusal
    return f"computed in {name_of(found.computes)} here" if found.computes != found.precision else ""

"""Draws pages from templates. Every text is escaped by the template engine: names and messages come from strangers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from service.database.clock import now
from service.report import formats
from service.web import words

_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """A file that pages refer to.

    Attributes:
        content: Its bytes.
        media_type: What it is.
        address: Where pages find it; another one for other bytes, so that browsers may keep it for good.
    """

    content: bytes
    media_type: str
    address: str


def page(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """Returns a page."""
    return HTMLResponse(draw(template, **{"visitor": None, "current": "", **values}), status, dict(headers or {}))


def draw(template: str, **values: Any) -> str:
    """Returns a template, filled in."""
    return _environment().get_template(template).render(values)


@cache
def assets() -> Mapping[str, Asset]:
    """Returns all assets by name; templates among them are filled in."""
    return {asset.address.rpartition("/")[2]: asset for asset in map(_read, sorted((_HERE / "static").iterdir()))}


def _read(path: Path) -> Asset:
    name = path.name.removesuffix(".j2")
    text = _loading().from_string(path.read_text()).render() if name != path.name else path.read_text()
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(content, _TYPES[Path(name).suffix], f"/static/{digest}/{name}")


@cache
def _loading() -> Environment:
    # The report's folder has the colours, which are the same here.
    folders = [_HERE / "pages", _HERE.parent / "report"]
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _environment() -> Environment:
    environment = _loading()
    environment.filters.update(
        ago=lambda moment: words.ago(moment, now()),
        bytes=formats.size,
        clock=words.clock,
        count=formats.integer,
        factor=formats.factor,
        large=formats.amount,
        moment=_moment,
        ms=formats.milliseconds,
        percent=formats.percent,
        significant=formats.significant,
    )
    environment.globals.update(asset=lambda name: assets()[name].address, nothing=formats.NOTHING)
    return environment


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"

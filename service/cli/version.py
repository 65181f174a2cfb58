"""`shoal version`."""

from __future__ import annotations

import click


def installed_version() -> str:
    """Returns the version of the installed distribution, or `unknown` in a source tree that is not installed."""
    from importlib import metadata

    try:
        return metadata.version("shoal")
    except metadata.PackageNotFoundError:
        return "unknown"


@click.command()
def version() -> None:
    """Show the version."""
    click.echo(f"shoal {installed_version()}")

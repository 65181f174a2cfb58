"""The `shoal` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line in `sys.argv` and exits with its status."""
    from service.cli.app import run

    sys.exit(run(sys.argv[1:]))

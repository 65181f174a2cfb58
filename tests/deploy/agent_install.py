"""Run by `make check-agent` in an environment that holds what an agent installs: everything that it needs is there, and
nothing that it must not need.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

MODULES = (
    "deploy.agent.agent",
    "deploy.agent.child",
    "deploy.agent.piece",
    "deploy.engines.worker",
    "deploy.measure.worker",
    "deploy.predict",
    "deploy.runtimes.onnxruntime_edges",
    "service.cli.agent",
    "service.cli.app",
)
UNWANTED = ("torch", "torchvision", "pandas", "sqlalchemy", "transformers")


def main() -> int:
    """Imports what an agent runs; returns the exit status."""
    found = [name for name in UNWANTED if importlib.util.find_spec(name)]
    for name in MODULES:
        importlib.import_module(name)
    from deploy.runtimes import find_runtime

    sys.stdout.write(
        f"an agent runs onnxruntime {find_runtime('onnxruntime').version()}, without {', '.join(UNWANTED)}\n"
    )
    if found:
        sys.stderr.write(f"installed, and an agent must not need it: {', '.join(found)}\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

# ruff: noqa: T201 (the address is its answer)
"""A server in a process of its own: settings as JSON in, the address out, then it serves."""

import sys

from service.server import serve
from service.settings import ServerSettings

serve(ServerSettings.model_validate_json(sys.argv[1]), lambda address: print(address, flush=True))

# ruff: noqa: T201 (the address is its answer)
"""A server as `shoal serve` runs it, traces and logs included: settings as JSON in, the address out, then it serves."""

import sys

from service.server import serve
from service.settings import ServerSettings
from service.watching import logs
from service.watching.export import start_export

settings = ServerSettings.model_validate_json(sys.argv[1])
logs.configure(settings.log_format)
stop = start_export("shoal-server")
serve(settings, lambda address: print(address, flush=True))
stop()

# ruff: noqa: T201 (stdout is the line to the server)
"""Says that it cannot be done: reason and blame as told."""

import json
import sys

sys.stdin.readline()
print(json.dumps({"type": "error", "reason": sys.argv[1], "message": "it cannot", "blame": sys.argv[2]}), flush=True)
sys.exit(1)

# ruff: noqa: T201 (stdout is the line to the server)
"""Writes down what a worker can see and may do."""

import json
import os
import resource
import sys
from pathlib import Path

order = json.loads(sys.stdin.readline())
facts = {
    "environment": dict(os.environ),
    "folder": str(Path.cwd()),
    "leads_session": os.getsid(0) == os.getpid(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "file_bytes": resource.getrlimit(resource.RLIMIT_FSIZE),
    "descriptors": len(list(Path("/proc/self/fd").iterdir())),
}
(Path(order["folder"]) / "out" / "probe.json").write_text(json.dumps(facts))
print(json.dumps({"type": "result", "file": "out/probe.json"}), flush=True)

# ruff: noqa: T201 (stdout is the line to the server)
"""Ignores SIGTERM and has a child; both must be gone after a cancel."""

import json
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.readline()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
report = {"type": "progress", "phase": "tune", "fraction": 0.5, "message": "", "metrics": {"child": child.pid}}
print(json.dumps(report), flush=True)
time.sleep(600)

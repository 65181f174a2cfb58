# ruff: noqa: T201 (stdout is the line to the server)
"""Writes what is no event: `text`, `huge` (a line without end), or `result` (a result that is not there)."""

import sys
import time

sys.stdin.readline()
if sys.argv[1] == "huge":
    for _ in range(3000):
        sys.stdout.write("x" * 1024)
    sys.stdout.flush()
elif sys.argv[1] == "result":
    print('{"type": "result", "file": "out/../../../etc/passwd"}', flush=True)
    sys.exit(0)
else:
    print("Downloading... 12%", flush=True)
time.sleep(600)

"""Hands in its result, then does not end: `self` hangs, `child` leaves a process in another session on its pipes."""

import json
import os
import subprocess
import sys
import time

sys.stdin.readline()
if sys.argv[1] == "child":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(8)"], start_new_session=True)
os.write(1, json.dumps({"type": "result", "file": "out/report.json"}).encode() + b"\n")
if sys.argv[1] == "self":
    time.sleep(600)

"""Writes far more to stderr than anybody keeps, then one last line."""

import sys

sys.stdin.readline()
for number in range(3000):
    sys.stderr.write(f"{number:06} " + "x" * 93 + "\n")
sys.stderr.write("the end\n")

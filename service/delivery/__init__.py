"""The folder that a job delivers: its manifest, its `run.py`, its layout for Triton, and the checks of all of it.

What describes a job runs in the worker and knows the engine (`describe`, `origin`). Everything else works on the files
alone: without torch, without a server.
"""

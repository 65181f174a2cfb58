"""Number formats written into the file: float16 and bfloat16 by casts, int8 by Q/DQ. One file per step; no torch.

Whatever a file computes in, its inputs and outputs stay float32, so that callers change nothing. Every type in it is
stated, so a runtime that takes files as they are typed (TensorRT from 11 on has no other way) runs what was written.
"""

from __future__ import annotations

from deploy.precision.result import Converted, Kept

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
"""What a file can be written in; the names are those of `deploy.artifact.Artifact.precision`."""

__all__ = ["PRECISIONS", "Converted", "Kept"]

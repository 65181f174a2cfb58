"""Generates the Python for `protos/shoal/v1`, with type stubs. Run as `python -m protos.generate [--output FOLDER]`.

The .proto files are rooted at `protos/` (so that the package directory matches, as buf wants it), but the Python
package is `protos.shoal.v1`; protoc has no option for that, so the generated imports are rewritten.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).parent
_IMPORT = re.compile(r"^(from|import) shoal\.v1\b", re.MULTILINE)
_STUB_NAME = re.compile(r"(?<![\w./\"'])shoal\.v1\.")


def generate(output: Path) -> list[Path]:
    """Writes `shoal/v1/*_pb2.py`, `*_pb2_grpc.py` and `.pyi` stubs under `output` and returns them.

    Raises:
        RuntimeError: protoc refused a file; it has printed why.
    """
    from grpc_tools import protoc

    well_known = resources.files("grpc_tools") / "_proto"
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "shoal/v1").glob("*.proto"))
    arguments = [f"-I{ROOT}", f"-I{well_known}", f"--python_out={output}", f"--grpc_python_out={output}"]
    arguments += [f"--mypy_out=quiet:{output}", f"--mypy_grpc_out=quiet:{output}"]
    # Beside this interpreter, which need not be on the PATH.
    for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        arguments.append(f"--plugin={Path(sys.executable).with_name(plugin)}")
    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise RuntimeError("protoc refused the files above")
    written = sorted(
        path for path in (output / "shoal/v1").iterdir() if "_pb2" in path.name and path.suffix in {".py", ".pyi"}
    )
    for path in written:
        text = _IMPORT.sub(r"\1 protos.shoal.v1", path.read_text())
        path.write_text(_STUB_NAME.sub("protos.shoal.v1.", text) if path.suffix == ".pyi" else text)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=ROOT)
    generate(parser.parse_args().output)

"""ONNX files, imported operator by operator.

The file is checked and parsed without trusting anything in it, its operators are computed with torch functions on the
stored weights, and `torch.export` records that, so that lifting sees what it sees of any other model.

Cases:
1. A file whose batch size is open gives a program with a free batch size.
2. A file with a fixed batch size gives a program with that size, which lifting frees.
3. What exporters took apart (erf-GELU, layer norms, linear layers) is put together again: `prepare`.
4. What cannot be computed exactly is refused by the operator's name.
"""

from __future__ import annotations

from compressors.errors import OptionError
from compressors.sources.onnx.files import find_model, opened
from compressors.sources.onnx.operators import check_known
from compressors.sources.onnx.parse import parse
from compressors.sources.onnx.prepare import prepare
from compressors.sources.onnx.trace import identifiers, trace
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced

__all__ = ["find_model", "read"]


def read(source: ModelSource) -> Traced:
    """Returns the model in an `.onnx` file, or in a zip or tar of one with its external data.

    Raises:
        UnsafeModelError: The file or archive reaches for other files.
        ModelError: It is damaged, contradicts itself or breaks a cap.
        UnsupportedModelError: It holds operators that cannot be imported exactly; the message names them all.
        OptionError: The source itself is incomplete.
    """
    if source.path is None:
        raise OptionError("source.path", "an ONNX source needs the path of the file")
    with opened(source.path) as path:
        model = parse(path)
    check_known(model.nodes, model.where)
    return Traced(trace(prepare(model), source), output_names=identifiers(model.outputs))

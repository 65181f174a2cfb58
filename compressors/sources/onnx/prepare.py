"""What exporters took apart, put together again."""

from __future__ import annotations

from compressors.sources.onnx.model import OnnxModel
from compressors.sources.onnx.patterns.activation import join_activations
from compressors.sources.onnx.patterns.convolution import join_convolution
from compressors.sources.onnx.patterns.copies import part_statistics, read_directly
from compressors.sources.onnx.patterns.draft import Draft
from compressors.sources.onnx.patterns.layernorm import join_layer_norms
from compressors.sources.onnx.patterns.linear import join_linear

_PATTERNS = (part_statistics, join_layer_norms, join_activations, join_linear, join_convolution)


def prepare(model: OnnxModel) -> OnnxModel:
    """Returns an equal model with linear layers, layer norms, activations and convolutions in one piece.

    Every replacement is exact up to the rounding of float32.
    """
    draft = Draft(read_directly(model))
    draft.drop_unread()
    for join in _PATTERNS:
        join(draft)
        draft.drop_unread()
    return draft.finish()

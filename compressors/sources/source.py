"""What a user may hand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        kind: "pt2" for a file that `torch.export.save` wrote, "onnx" for an ONNX file (or a zip or tar that holds one
            with its external data), "folder" for a transformers or diffusers folder (config and safetensors, sharded or
            not; or a zip or tar of it), "named" for an architecture from a registry.
        path: The file or folder; for all but "named".
        name: Registry and architecture, e.g. "timm:resnet18" or "transformers:bert-base-uncased"; for "named".
        weights: A state dict, as safetensors or for `torch.load(weights_only=True)`; for "named".
        sample_shape: Shape of one sample without the batch dimension, e.g. (3, 224, 224), of a model with one input.
            Needed where neither the file nor the architecture's config states it.
        input_shapes: The same by input name, for models with several inputs; what is missing comes from the file.
        num_classes: Classes of the head; the architecture's default where it is not given.
        options: `random_weights: True` allows a named model without weights (latency and analysis only);
            `pretrained: True` downloads the published weights of a named model; `task` picks the head of a
            transformers model, e.g. "text-classification".
    """

    kind: Literal["pt2", "onnx", "folder", "named"]
    path: Path | None = None
    name: str | None = None
    weights: Path | None = None
    sample_shape: tuple[int, ...] | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    num_classes: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)

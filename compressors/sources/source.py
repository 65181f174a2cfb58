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
        kind: "pt2" for a file that `torch.export.save` wrote, "named" for an architecture from a registry.
        path: The file; for "pt2".
        name: Registry and architecture, e.g. "timm:resnet18" or "torchvision:mobilenet_v2"; for "named".
        weights: A state dict, as safetensors or for `torch.load(weights_only=True)`; for "named".
        sample_shape: Shape of one sample without the batch dimension, e.g. (3, 224, 224). Needed where neither the file
            nor the architecture's config states it.
        num_classes: Classes of the head; the architecture's default where it is not given.
        options: `random_weights: True` allows a named model without weights (latency and analysis only).
    """

    kind: Literal["pt2", "named"]
    path: Path | None = None
    name: str | None = None
    weights: Path | None = None
    sample_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)

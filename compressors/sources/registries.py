"""Libraries of vision architectures with one image input: timm and torchvision."""

from __future__ import annotations

from typing import Any, Protocol, final

from torch import nn


class Registry(Protocol):
    """A library of architectures."""

    def names(self) -> list[str]:
        """Returns every architecture it can build."""
        ...

    def build(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        """Returns the architecture with random weights; downloads nothing."""
        ...

    def published(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        """Returns the architecture with its published weights; needs a network or a filled cache."""
        ...

    def preprocessing(self, name: str) -> dict[str, Any] | None:
        """Returns what the architecture's config says about its inputs."""
        ...


@final
class _Timm:
    """The timm library. A name may carry a pretrained tag (`resnet18.a1_in1k`), which selects config and weights."""

    def names(self) -> list[str]:
        import timm

        return list(timm.list_models())

    def build(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        return self._create(name, num_classes, sample_shape, pretrained=False)

    def published(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        import timm

        config: Any = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise ValueError("timm publishes no weights under this name")
        return self._create(name, num_classes, sample_shape, pretrained=True)

    def _create(
        self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None, *, pretrained: bool
    ) -> nn.Module:
        import timm

        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        config: Any = timm.get_pretrained_cfg(name)
        if sample_shape and config is not None:
            if sample_shape[0] != config.input_size[0]:
                options["in_chans"] = sample_shape[0]
            if config.fixed_input_size and tuple(sample_shape[1:]) != tuple(config.input_size[1:]):
                options["img_size"] = tuple(sample_shape[1:])
        return timm.create_model(name, pretrained=pretrained, **options)

    def preprocessing(self, name: str) -> dict[str, Any] | None:
        import timm

        config = timm.get_pretrained_cfg(name)
        if config is None:
            return None
        return {
            "mean": tuple(config.mean),
            "std": tuple(config.std),
            "input_size": tuple(config.input_size),
            "interpolation": config.interpolation,
            "crop_pct": config.crop_pct,
            "squash": config.crop_mode == "squash",
        }


@final
class _Torchvision:
    """The torchvision library."""

    def names(self) -> list[str]:
        from torchvision import models

        return list(models.list_models())

    def build(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        from torchvision import models

        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if name in {"googlenet", "inception_v3"}:
            options["init_weights"] = False
        if sample_shape and name.startswith("vit_"):
            options["image_size"] = sample_shape[-1]
        if name not in models.list_models(models):
            options["weights_backbone"] = None
        return models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]

    def published(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        from torchvision import models

        weights = models.get_model_weights(name)
        if not len(weights):
            raise ValueError("torchvision publishes no weights under this name")
        model = self.build(name, None, sample_shape)
        state = weights.DEFAULT.get_state_dict(progress=False, check_hash=True, weights_only=True)
        if num_classes is not None and num_classes != len(weights.DEFAULT.meta["categories"]):
            raise ValueError(f"the published weights are for {len(weights.DEFAULT.meta['categories'])} classes")
        model.load_state_dict(state)
        return model

    def preprocessing(self, name: str) -> dict[str, Any] | None:
        from torchvision import models

        weights = models.get_model_weights(name)
        transform = weights.DEFAULT.transforms() if len(weights) else None
        crop = getattr(transform, "crop_size", None)
        if transform is None or not crop:
            return None
        return {
            "mean": tuple(transform.mean),
            "std": tuple(transform.std),
            "input_size": (len(transform.mean), crop[0], crop[-1]),
            "interpolation": transform.interpolation.value,
            "crop_pct": crop[0] / transform.resize_size[0],
        }


REGISTRIES: dict[str, Registry] = {"timm": _Timm(), "torchvision": _Torchvision()}
"""Libraries by the prefix of their names."""

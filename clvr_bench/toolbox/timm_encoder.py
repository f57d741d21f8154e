"""Any timm network as an encoder: pooled features, feature maps, and patch tokens where it has patches."""

from __future__ import annotations

from typing import Any, Literal

import timm
import torch
from timm.layers import get_norm_layer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clvr_bench.contracts.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder
from clvr_bench.errors import ClvrBenchError
from clvr_bench.toolbox.weights.formats import Normalization


class TimmEncoder(Encoder):
    """A timm network without its classifier.

    Args:
        network: A timm model, built with ``num_classes=0``.
        in_channels: C, the channels of its input; its mean and standard deviation are averaged where C is not theirs.

    Attributes:
        normalization: What it was built to expect, known on the meta device too, where buffers have no values.

    Source: timm (Wightman 2019, https://github.com/huggingface/pytorch-image-models).
    """

    def __init__(self, network: nn.Module, *, in_channels: int = 3) -> None:
        config: dict[str, Any] = getattr(network, "pretrained_cfg", {}) or {}
        own = Normalization(tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD)))
        own = own.for_channels(in_channels)
        super().__init__(mean=own.mean, std=own.std, minimum_size=_patch_size(network))
        self.normalization, self.network = own, network

    def encode(self, images: Tensor) -> Tensor:
        """Map normalized pictures (B, C, H, W) to pooled features (B, D)."""
        features: Tensor = self.network(images)
        return features

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalized pictures (B, C, H, W) to the feature maps (B, c, h, w) of every stage or block."""
        intermediates: Any = getattr(self.network, "forward_intermediates", None)
        if intermediates is None:
            return super().encode_maps(images)
        maps: list[Tensor] = intermediates(images, intermediates_only=True, output_fmt="NCHW")
        return maps

    def encode_tokens(self, images: Tensor, keep: Tensor | None) -> Tensor:
        """Map normalized pictures to tokens (B, prefix + n, D), encoding only the patches in ``keep`` (B, n)."""
        network = self.network
        if not isinstance(network, VisionTransformer):
            return super().encode_tokens(images, keep)
        tokens = network._pos_embed(network.patch_embed(images))  # (B, prefix + patches, D)
        if keep is not None:
            prefix, patches = tokens[:, : network.num_prefix_tokens], tokens[:, network.num_prefix_tokens :]
            kept = patches.gather(1, keep[:, :, None].expand(-1, -1, patches.shape[-1]))  # (B, n, D)
            tokens = torch.cat([prefix, kept], dim=1)
        encoded: Tensor = network.norm(network.blocks(network.norm_pre(tokens)))
        return encoded

    @classmethod
    def named(cls, name: str, *, in_channels: int = 3, norm: Literal["own", "layer"] = "own") -> TimmEncoder:
        """Build one of timm's networks by name, with random weights.

        Args:
            name: As timm has it, such as ``"resnet18"``.
            in_channels: C, the channels of its input.
            norm: ``"layer"`` replaces BatchNorm by layer normalization (a group norm of one group); networks without
                BatchNorm stay as they are.

        Raises:
            ClvrBenchError: timm cannot replace the network's BatchNorm.
        """
        network = _create(name, in_chans=in_channels)
        if norm == "layer" and _has_batch_norm(network):
            network = _create_with_layer_norm(name, in_chans=in_channels)
        return cls(network, in_channels=in_channels)


def _create(name: str, **options: Any) -> nn.Module:
    try:  # vision transformers take other sizes than their own only when told to
        network: nn.Module = timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
    except TypeError:
        network = timm.create_model(name, num_classes=0, **options)
    return network


def _create_with_layer_norm(name: str, **options: Any) -> nn.Module:
    try:
        network = _create(name, norm_layer=get_norm_layer("groupnorm1"), **options)
    except (KeyError, TypeError):  # timm's networks differ in how they refuse an argument that they lack
        network = None
    if network is None or _has_batch_norm(network):
        raise ClvrBenchError(
            f"encoder '{name}': timm cannot replace all of its BatchNorm. Use a ResNet for norm='layer'."
        )
    return network


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _patch_size(network: nn.Module) -> int:
    size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    return max(size) if isinstance(size, tuple) else int(size)

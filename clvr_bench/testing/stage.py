"""What plugins are tried on: a few dozen pictures that are drawn here, a small ResNet, a small vision transformer."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import get_norm_layer
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clvr_bench.contracts.dataset import Dataset, ResidentSplit
from clvr_bench.data import Data, prepare
from clvr_bench.draws import SampleRandom
from clvr_bench.registry import Entry, Kind
from clvr_bench.toolbox import TimmEncoder

CPU = torch.device("cpu")
RESNET, VIT, PICTURES = "check_resnet", "check_vit", "check_pictures"
_SIDE = 32


class CheckPictures(Dataset):
    """Four classes of striped pictures, upright or lying, red or blue, in noise: learnable in seconds."""

    image_size = _SIDE
    class_names = ("red columns", "blue columns", "red rows", "blue rows")
    coarse_names = ("columns", "rows")
    coarse = (0, 0, 1, 1)

    def __init__(self, root: Path | None) -> None:
        self._train, self._test = _striped(104, "train"), _striped(32, "test")

    @property
    def train(self) -> ResidentSplit:
        """104 pictures, of which val takes 4."""
        return self._train

    @property
    def test(self) -> ResidentSplit:
        """32 pictures."""
        return self._test


def _striped(count: int, split: str) -> ResidentSplit:
    labels = torch.arange(count) % 4
    draws = SampleRandom.keyed(0, 0, torch.arange(count)).scoped(split)("pictures")
    phase, period = draws.uniform(1, 1), draws.uniform(1, 1, low=5, high=9)
    ramp = torch.arange(_SIDE).float()
    waves = ((ramp / period + phase) * 2 * torch.pi).sin()  # (B, 1, _SIDE)
    columns = waves[:, :, None, :].expand(-1, 1, _SIDE, -1)
    stripes = columns.where((labels < 2)[:, None, None, None], columns.transpose(2, 3))  # (B, 1, H, W)
    red = torch.tensor([0.9, 0.3, 0.3])[:, None, None]
    tint = red.where((labels % 2 == 0)[:, None, None, None], red.flip(0))
    noise = draws.uniform(3, _SIDE, _SIDE, low=-0.15, high=0.15)
    pixels = (tint * (0.7 + 0.3 * stripes) + noise).clamp(0, 1)
    return ResidentSplit((255 * pixels).to(torch.uint8), labels)


def small_resnet(*, in_channels: int = 3, norm: Literal["own", "layer"] = "own") -> TimmEncoder:
    """Build a ResNet of four narrow blocks, without max-pooling, so that views of 12 px still fill its last maps."""
    norm_layer = get_norm_layer("groupnorm1" if norm == "layer" else "batchnorm2d")
    network = ResNet(
        BasicBlock, (1, 1, 1, 1), num_classes=0, in_chans=in_channels, channels=(8, 16, 32, 64), norm_layer=norm_layer,
        stem_type="deep", stem_width=4,
    )  # fmt: skip
    network.maxpool = nn.Identity()
    return TimmEncoder(network, in_channels=in_channels)


def small_vit(*, in_channels: int = 3, norm: Literal["own", "layer"] = "own") -> TimmEncoder:
    """Build a vision transformer of two narrow blocks on patches of 8 px; it has layer normalization of its own."""
    network = VisionTransformer(
        img_size=_SIDE, patch_size=8, in_chans=in_channels, num_classes=0, embed_dim=48, depth=2, num_heads=3,
        dynamic_img_size=True,
    )  # fmt: skip
    return TimmEncoder(network, in_channels=in_channels)


def _entry(kind: Kind, name: str, factory: Any) -> Entry:
    return Entry(kind, name, factory, summary="For checks.", source="none", version="1", plugin="clvr_bench.testing")


ENTRIES = (
    _entry(Kind.ENCODER, RESNET, small_resnet),
    _entry(Kind.ENCODER, VIT, small_vit),
    _entry(Kind.DATASET, PICTURES, CheckPictures),
)


@lru_cache(maxsize=1)
def pictures() -> Data:
    """Return the pictures with val held out."""
    return prepare(PICTURES, CheckPictures(None), CPU)


def some_views(count: int, size: int = _SIDE, channels: int = 3) -> Tensor:
    """Draw noise pictures (count, channels, size, size), float32 in [0, 1)."""
    return SampleRandom.keyed(1, 0, torch.arange(count))("views").uniform(channels, size, size)

"""ResNets for small pictures: a 3x3 stem without max-pooling, so that the first block still sees 32 px, not 8."""

from __future__ import annotations

from functools import partial
from typing import Literal

from timm.layers import get_norm_layer
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from clvr_bench import Encoder, Register, hookimpl
from clvr_bench.toolbox import TimmEncoder

SOURCE = (
    "He et al. 2016, https://arxiv.org/abs/1512.03385; stem of SimCLR, appendix B.9, https://arxiv.org/abs/2002.05709"
)


@hookimpl
def register_encoders(register: Register) -> None:
    """Register the small-picture ResNets."""
    stem = "with a 3x3 stem and no max-pooling"
    resnet18, resnet50 = (BasicBlock, (2, 2, 2, 2)), (Bottleneck, (3, 4, 6, 3))
    for name, architecture, width, summary in (
        ("resnet18_small", resnet18, 64, f"ResNet-18 {stem} (11.2M)."),
        (
            "resnet18_small_w16",
            resnet18,
            16,
            f"ResNet-18 {stem}, at a quarter of its width (0.7M), for suites on a CPU.",
        ),
        ("resnet50_small", resnet50, 64, f"ResNet-50 {stem} (23.5M)."),
    ):
        register(name, partial(small_resnet, *architecture, width), summary=summary, source=SOURCE, version=1)


def small_resnet(
    block: type[nn.Module],
    layers: tuple[int, ...],
    width: int,
    *,
    in_channels: int = 3,
    norm: Literal["own", "layer"] = "own",
) -> Encoder:
    """Build a ResNet for small pictures.

    Args:
        block: timm's basic or bottleneck block.
        layers: Blocks a stage.
        width: Channels of the stem and of the first stage; they double at each of the three further stages.
        in_channels: C, the channels of its input.
        norm: BatchNorm, or layer normalization (a group norm of one group) in its place.
    """
    channels = (width, 2 * width, 4 * width, 8 * width)
    norm_layer = get_norm_layer("groupnorm1" if norm == "layer" else "batchnorm2d")
    # timm fixes a plain stem at 64 channels; only a deep one follows stem_width, and is then replaced whole
    stem = {"stem_type": "deep", "stem_width": width // 2}
    network = ResNet(
        block, layers, num_classes=0, in_chans=in_channels, channels=channels, norm_layer=norm_layer, **stem
    )
    network.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.init_weights()
    return TimmEncoder(network, in_channels=in_channels)

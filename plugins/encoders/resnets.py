"""ResNets that timm lacks: with a stem for small pictures, of other widths, without the last stage."""

from __future__ import annotations

from functools import partial
from typing import Literal

import timm
from timm.layers import get_norm_layer
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from clvr_bench import Encoder, Register, hookimpl
from clvr_bench.toolbox import TimmEncoder

RESNET18, RESNET50 = (BasicBlock, (2, 2, 2, 2)), (Bottleneck, (3, 4, 6, 3))
RESNETS = "He et al. 2016, https://arxiv.org/abs/1512.03385"
SMALL = f"{RESNETS}; stem of SimCLR, appendix B.9, https://arxiv.org/abs/2002.05709"
WIDE = f"{RESNETS}; widths: Kolesnikov et al. 2019, https://arxiv.org/abs/1901.09005, section 3.1"
STAGE3 = f"{RESNETS}; without its last stage: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, section 3.2"


@hookimpl
def register_encoders(register: Register) -> None:
    """Register the ResNets."""
    small_stem = "with a 3x3 stem and no max-pooling"
    for name, architecture, width, summary in (
        ("resnet18_small", RESNET18, 64, f"ResNet-18 {small_stem} (11.2M)."),
        (
            "resnet18_small_w16",
            RESNET18,
            16,
            f"ResNet-18 {small_stem}, at a quarter of its width (0.7M), for suites on a CPU.",
        ),
        ("resnet18_small_w32", RESNET18, 32, f"ResNet-18 {small_stem}, at half of its width (2.8M)."),
        ("resnet50_small", RESNET50, 64, f"ResNet-50 {small_stem} (23.5M)."),
    ):
        register(name, partial(resnet, *architecture, width, 3), summary=summary, source=SMALL, version=1)
    for times, millions in ((2, 94), (4, 375)):
        register(
            f"resnet50x{times}",
            partial(resnet, *RESNET50, 64 * times, 7),
            summary=f"ResNet-50 with {times} times the channels everywhere, the stem too ({millions}M).",
            source=WIDE,
            version=1,
        )
    register(
        "resnet101_stage3",
        resnet101_stage3,
        summary="ResNet-101 without its last stage (28M), as CPC v1 was compared.",
        source=STAGE3,
        version=1,
    )


def resnet(
    block: type[nn.Module],
    layers: tuple[int, ...],
    width: int,
    stem: int,
    *,
    in_channels: int = 3,
    norm: Literal["own", "layer"] = "own",
) -> Encoder:
    """Build a ResNet of any width.

    Args:
        block: timm's basic or bottleneck block.
        layers: Blocks a stage.
        width: Channels of the stem and of the first stage; they double at each of the three further stages.
        stem: Kernel of the first convolution: 7 is ResNet's, which with a pooling leaves a quarter of the height and
            width; 3 is for small pictures and leaves all.
        in_channels: C, the channels of its input.
        norm: BatchNorm, or layer normalization (a group norm of one group) in its place.
    """
    channels = (width, 2 * width, 4 * width, 8 * width)
    norm_layer = get_norm_layer("groupnorm1" if norm == "layer" else "batchnorm2d")
    # timm fixes a plain stem at 64 channels; only a deep one follows stem_width, and is then replaced whole
    replaced = {"stem_type": "deep", "stem_width": width // 2}
    network = ResNet(
        block, layers, num_classes=0, in_chans=in_channels, channels=channels, norm_layer=norm_layer, **replaced
    )
    stride = 1 if stem == 3 else 2
    network.conv1 = nn.Conv2d(in_channels, width, kernel_size=stem, stride=stride, padding=stem // 2, bias=False)
    if stem == 3:
        network.maxpool = nn.Identity()
    network.init_weights()
    return TimmEncoder(network, in_channels=in_channels)


def resnet101_stage3(*, in_channels: int = 3, norm: Literal["own", "layer"] = "own") -> Encoder:
    """Build a ResNet-101 that ends with its third stage: features (B, 1024).

    Args:
        in_channels: C, the channels of its input.
        norm: BatchNorm, or layer normalization (a group norm of one group) in its place.
    """
    norm_layer = get_norm_layer("groupnorm1" if norm == "layer" else "batchnorm2d")
    network = timm.create_model("resnet101", num_classes=0, in_chans=in_channels, norm_layer=norm_layer)
    network.layer4, network.num_features = nn.Identity(), 1024
    return _ThreeStages(network, in_channels=in_channels)


class _ThreeStages(TimmEncoder):
    def encode_maps(self, images: Tensor) -> list[Tensor]:
        """Leave out what timm takes for the fourth stage."""
        return super().encode_maps(images)[:-1]

"""VGG without its fully connected layers, whose parameters are nine tenths of the network."""

from __future__ import annotations

import timm
from torch import nn

from clvr_bench import Encoder, Register, hookimpl
from clvr_bench.toolbox import TimmEncoder


@hookimpl
def register_encoders(register: Register) -> None:
    """Register VGG-16's convolutions."""
    register(
        "vgg16_features",
        vgg16_features,
        summary="The convolutions of VGG-16 with BatchNorm, pooled (15M), as DeepCluster was compared.",
        source="Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556; "
        "BatchNorm: Caron et al. 2018, https://arxiv.org/abs/1807.05520, section 3.3",
        version=1,
    )


def vgg16_features(*, in_channels: int = 3) -> Encoder:
    """Build VGG-16 up to its last pooling, averaged over positions: features (B, 512).

    Args:
        in_channels: C, the channels of its input.
    """
    network = timm.create_model("vgg16_bn", num_classes=0, in_chans=in_channels)
    network.pre_logits = nn.Identity()
    network.head_hidden_size = network.num_features
    return TimmEncoder(network, in_channels=in_channels)

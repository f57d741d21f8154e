"""Vision transformers for small pictures: patches of 4 px, so that 32 px are 64 tokens, not 4."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer

from clvr_bench import Encoder, Register, hookimpl
from clvr_bench.toolbox import TimmEncoder

SOURCE = (
    "Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; positions and pooling of Beyer et al. 2022, "
    "https://arxiv.org/abs/2205.01580"
)
_PATCH = 4  # px
_IMAGE_SIZE = 32  # px, that the positions are made for; they are interpolated to other sizes


@hookimpl
def register_encoders(register: Register) -> None:
    """Register the small-picture vision transformers."""
    for name, width, depth, heads, summary in (
        ("vit_micro_patch4_32", 96, 6, 3, "A vision transformer with patches of 4 px (0.7M), for suites on a CPU."),
        ("vit_tiny_patch4_32", 192, 12, 3, "ViT-Ti with patches of 4 px (5.3M)."),
        ("vit_small_patch4_32", 384, 12, 6, "ViT-S with patches of 4 px (21.3M)."),
    ):
        register(name, partial(small_vit, width, depth, heads), summary=summary, source=SOURCE, version=1)


def small_vit(
    width: int,
    depth: int,
    heads: int,
    *,
    in_channels: int = 3,
    pool: Literal["mean", "token"] = "mean",
    norm: Literal["own", "layer"] = "own",
) -> Encoder:
    """Build a vision transformer for small pictures.

    Positions are fixed sines and cosines, as in MAE (He et al. 2021, appendix A.1) and in "Better plain ViT baselines"
    (Beyer et al. 2022), and interpolated where a picture is not of 32 px; weights start as in the ViT authors' code
    (Xavier uniform). A feature is normalized and the mean of the patches' tokens, which small data train faster
    (Beyer et al. 2022, section 3) and which MAE finds as good as a class token (appendix A.1).

    Args:
        width: D, the length of a token and of a feature.
        depth: Transformer blocks.
        heads: Attention heads of a block.
        in_channels: C, the channels of its input.
        pool: What a feature is: the mean of the patches' tokens, without a class token, or the class token.
        norm: Of no effect: all normalization is LayerNorm, as tasks that refuse BatchNorm ask for.
    """
    network = VisionTransformer(
        img_size=_IMAGE_SIZE,
        patch_size=_PATCH,
        in_chans=in_channels,
        num_classes=0,
        global_pool="avg" if pool == "mean" else "token",
        fc_norm=False,  # timm would normalize the mean; here tokens are normalized, and so the same with either pool
        class_token=pool == "token",
        no_embed_class=True,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        dynamic_img_size=True,
        weight_init="jax",
    )
    positions = build_sincos2d_pos_embed([_IMAGE_SIZE // _PATCH] * 2, width)[None]  # (1, 64, D)
    del network.pos_embed  # a parameter, where a constant is wanted
    network.register_buffer("pos_embed", positions.to(torch.float32), persistent=False)
    return TimmEncoder(network, in_channels=in_channels)

"""Masked autoencoder: encode a quarter of a picture's patches, reconstruct the pixels of all others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    EncoderFacts,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import patchify

MID_GRAY = 0.5  # of hidden patches where a person looks at them


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the masked autoencoder."""
    register(
        "mae",
        MAE,
        summary="Encodes a quarter of the patches and reconstructs the pixels of the others.",
        source="He et al. 2021, https://arxiv.org/abs/2111.06377",
        version=1,
    )


class MAE(PretextTask):
    """MAE (He et al. 2021, section 3 and appendix A.1).

    Each sample hides its own random patches, as many as every other; the encoder sees the rest alone. Where the paper
    is silent the authors' code is followed: targets are pixels of normalized pictures, the decoder sees the class token
    of an encoder that has one, its attention has 16 heads. What is evaluated is the encoder's own feature, be it a
    class token or a mean, which the paper finds alike.
    Differs from the paper: by default crops start at 8% of a picture's area, in the authors' code at 20%.

    Args:
        encoder: Encodes any subset of a square grid of patches.
        data: Its image size makes the grid.
        mask_ratio: The part of the patches that is hidden, in (0, 1) (section 4.1: 0.75).
        norm_pix: Whether pixels are predicted less their patch's mean, over its standard deviation (table 1d: better).
        decoder_dim: Length of the decoder's tokens, a multiple of 4 and of its heads (table 1b: 512).
        decoder_depth: Its transformer blocks (table 1a: 8).
        decoder_heads: Attention heads of each of these blocks (authors' code: 16).
    """

    views = 1
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(  # table 8; 40 of 800 epochs warm up
        optimizer="adamw", learning_rate=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, warmup=0.05
    )
    check_options: ClassVar[Mapping[str, Any]] = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        if decoder_depth < 1 or decoder_heads < 1 or decoder_dim < 1 or decoder_dim % math.lcm(4, decoder_heads):
            raise ClvrBenchError(
                "mae: decoder_dim must be a multiple of 4 and of decoder_heads, and decoder_depth positive, got "
                f"{decoder_dim}, {decoder_heads} and {decoder_depth}. The paper's are 512, 16 and 8."
            )
        self.encoder = encoder
        self.grid, self.prefix = patch_layout(encoder, data.image_size)
        self.patch = data.image_size // self.grid
        patches = self.grid**2
        self.visible = int(patches * (1 - mask_ratio))
        if not 0 < self.visible < patches:
            raise ClvrBenchError(
                f"mae: mask_ratio must hide some of {patches} patches and leave some, got {mask_ratio}. Typical: 0.75."
            )
        self.norm_pix = norm_pix
        self.enter = nn.Linear(encoder.feature_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim))
        self.blocks = nn.Sequential(*(Block(decoder_dim, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)))
        self.norm = nn.LayerNorm(decoder_dim)
        self.leave = nn.Linear(decoder_dim, self.patch**2 * len(encoder.mean))
        positions = build_sincos2d_pos_embed([self.grid, self.grid], decoder_dim)  # (n, P)
        self.register_buffer("positions", positions, persistent=False)
        initialize(self.mask_token, self.enter, self.blocks, self.leave)

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Say which encoders have no patches to hide."""
        return None if encoder.has_tokens else f"it hides patches, {encoder.name} has no patch tokens"

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the mean squared error of the hidden patches' pixels."""
        images = (batch.views[0] - self.encoder.mean) / self.encoder.std
        seen, hidden = self._divided(batch)
        tokens = self.encoder.tokens(images, keep=seen, normalize=False)  # (B, prefix + visible, D)
        predicted = self.leave(take(self.decode(tokens, seen), hidden)).float()  # (B, n - visible, P * P * C)
        target = take(patchify(images, self.patch), hidden)
        return StepOutput(loss=F.mse_loss(predicted, normalized(target) if self.norm_pix else target))

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the patches that are seen; the others are mid-gray here, and not there at all for the encoder."""
        seen, _ = self._divided(batch)
        shown = batch.views[0].where(patch_mask(seen, self.grid, self.patch), MID_GRAY)
        return {f"{self.visible} of {self.grid**2} seen": shown}

    def _divided(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Draw the numbers of the patches that are seen (B, visible), and of those that are hidden (B, n - visible)."""
        order = batch.random("mask").permutation(self.grid**2)  # (B, n)
        return order[:, : self.visible], order[:, self.visible :]

    def decode(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Decode encoded tokens (B, prefix + visible, D) of the patches ``seen`` into all patches' (B, n, P)."""
        entered = self.enter(tokens)  # (B, prefix + visible, P)
        prefix, patches = entered[:, : self.prefix], entered[:, self.prefix :]
        whole = self.mask_token.to(patches.dtype).expand(len(tokens), self.grid**2, -1)
        whole = whole.scatter(1, seen[:, :, None].expand_as(patches), patches) + self.positions  # (B, n, P)
        decoded: Tensor = self.norm(self.blocks(torch.cat([prefix.to(whole.dtype), whole], dim=1)))
        return decoded[:, self.prefix :]


def patch_layout(encoder: Encoder, image_size: int) -> tuple[int, int]:
    """Find how an encoder cuts pictures: patches along a side, and tokens before those of the patches.

    Raises:
        ClvrBenchError: They do not make a square grid of whole patches.
    """
    training, passes = encoder.training, encoder.passes
    blank = torch.zeros(1, len(encoder.mean), image_size, image_size, device=encoder.mean.device)
    with torch.no_grad():
        encoder.eval()
        count = encoder.tokens(blank).shape[1]
        prefix = encoder.tokens(blank, keep=torch.zeros(1, 1, dtype=torch.long, device=blank.device)).shape[1] - 1
    encoder.train(training)
    encoder.passes = passes
    grid = math.isqrt(count - prefix)
    if grid**2 != count - prefix or image_size % grid:
        raise ClvrBenchError(
            f"mae: patches must make a square grid over {image_size} px pictures, got {count - prefix}. "
            "Choose an encoder whose patch size divides the image size."
        )
    return grid, prefix


def patch_mask(patches: Tensor, grid: int, patch: int) -> Tensor:
    """Mark the pixels of some patches.

    Args:
        patches: (B, m) int64, their numbers in raster order.
        grid: Patches along a side.
        patch: A patch's side in pixels.

    Returns:
        (B, 1, grid * patch, grid * patch) bool.
    """
    marked = torch.zeros(len(patches), grid**2, dtype=torch.bool, device=patches.device).scatter_(1, patches, True)
    return marked.view(-1, 1, grid, grid).repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Take the tokens at (B, m) places out of (B, n, P): (B, m, P)."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[-1]))


def normalized(patches: Tensor) -> Tensor:
    """Subtract each patch's mean and divide by its standard deviation, unbiased as in the authors' code: (B, n, P)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()  # the authors' code has this constant


def initialize(mask_token: Tensor, *modules: nn.Module) -> None:
    """Draw the mask token from a narrow normal, the decoder's linear layers Xavier-uniformly (appendix A.1)."""
    nn.init.normal_(mask_token, std=0.02)
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

"""Context encoder: paint what is missing from a picture, so well that an adversary cannot tell, if one is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    EncoderFacts,
    Phase,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    decay_groups,
    hookimpl,
)
from clvr_bench.toolbox import picture_decoder, picture_features

BLOCKS = 4  # of a quarter of the side each: a quarter of the picture at most, as the paper has it

Region = Literal["center", "blocks"]


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the context encoder."""
    register(
        "context_encoder",
        ContextEncoder,
        summary="Paints the missing part of a picture, with or without an adversary.",
        source="Pathak et al. 2016, https://arxiv.org/abs/1604.07379",
        version=1,
    )


class ContextEncoder(PretextTask):
    """Context encoders (Pathak et al. 2016, section 3, equations 1 to 3).

    Hidden pixels get the encoder's mean color. The encoder's last maps pass a layer that is fully connected within each
    channel, then a convolution across channels, and a decoder doubles them to the part that is painted. With
    ``region="center"`` that is the central half of each side, of which a rim is seen and counts more; with ``"blocks"``
    it is the whole picture, of which hidden blocks, each picture's own, and the rims around them count. The loss is the
    squared error, and a small share of what a discriminator says, which sees painted or true parts. Its steps alternate
    with those of encoder and decoder, each on a batch of its own. The probe sees whole pictures.
    The paper's own features were learned from the squared error alone, as the adversary did not converge with AlexNet:
    ``adversarial=0``, and every step is one of encoder and decoder.
    Left open by the paper: how many blocks there are, and their size (here 4 of a quarter of the side).
    Differs from the paper: the encoder may have poolings; decoder and discriminator are small ones that double and
    halve, the latter without BatchNorm; there are no random regions of any shape. As in the authors' code
    (https://github.com/pathak22/context-encoder), pixels are compared from -1 to 1, encoder and decoder learn to have
    what they paint taken for true, which equation 2 alone would teach them slowly, and rates are constant.

    Args:
        encoder: Has feature maps (B, c, n, n).
        data: Half of its image size is the side of what is painted of the center.
        region: What is hidden: a square in the middle, or small blocks anywhere, which may overlap (section 3.3).
        overlap: The width of the rim of hidden parts that is painted too, as a part of the picture's side; rounded to
            pixels (the authors' code: 4 of 128, and none of random regions).
        overlap_weight: What a rim's pixel counts, 0 or more, where a hidden one counts 1 (the authors' code: 10).
        adversarial: The share of the adversarial loss, in [0, 1), the rest being the squared error's; 0 leaves the
            discriminator out (the authors' code: 0.001).
        discriminator_rate: The discriminator's learning rate, as a multiple of that of encoder and decoder (the
            authors' code: 0.1).
        width: Channels of decoder and discriminator at full resolution; they double with each halving (the
            authors' code: 64 at half of it).

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    views = 1
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(  # the authors' code, where the discriminator has a tenth of the rate
        optimizer="adam", learning_rate=2e-3, scaling="none", betas=(0.5, 0.999), weight_decay=0.0, warmup=0.0,
        schedule="constant",
    )  # fmt: skip
    check_options: ClassVar[Mapping[str, Any]] = {"width": 8}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        region: Region = "center",
        overlap: float = 4 / 128,
        overlap_weight: float = 10.0,
        adversarial: float = 0.001,
        discriminator_rate: float = 0.1,
        width: int = 64,
    ) -> None:
        super().__init__()
        size = data.image_size
        self.overlap = round(overlap * size)
        self.hidden_side = size // 2 - 2 * self.overlap if region == "center" else size // 4
        if overlap < 0 or self.hidden_side < 1:
            raise ClvrBenchError(
                f"context_encoder: overlap must not be negative and leave a part of {size} px hidden, got {overlap}. "
                "Typical: 0.03."
            )
        if overlap_weight < 0 or not 0 <= adversarial < 1 or discriminator_rate <= 0 or width < 1:
            raise ClvrBenchError(
                "context_encoder: overlap_weight must not be negative, adversarial in [0, 1), discriminator_rate and "
                f"width positive, got {overlap_weight}, {adversarial}, {discriminator_rate} and {width}. Typical: 10, "
                "0.001, 0.1 and 64."
            )
        self.region, self.overlap_weight = region, overlap_weight
        self.adversarial, self.discriminator_rate = adversarial, discriminator_rate
        start, side = ((size - size // 2) // 2, size // 2) if region == "center" else (0, size)
        self.painted = (..., slice(start, start + side), slice(start, start + side))
        self.encoder = encoder
        self.decoder = Decoder(*map_layout(encoder, size), data.channels, side, width)
        if adversarial:
            self.phases = (Phase("discriminator"), Phase("train"))
            trunk, features = picture_features(data.channels, side, width)
            self.discriminator = nn.Sequential(trunk, nn.Linear(features, 1))

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Say which encoders have no maps that are pooled into their feature."""
        if encoder.has_feature_maps and not encoder.has_tokens:
            return None
        return f"it decodes the maps of a convolutional network, {encoder.name} has none"

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the discriminator's loss, or the joint one of encoder and decoder (equation 3)."""
        images, hidden = batch.views[0], self.hidden(batch)
        true = images[self.painted]
        with torch.set_grad_enabled(batch.phase == "train"):
            painted = self.decoder(self.encoder.feature_maps(self.masked(images, hidden))[-1]).float()  # (B, C, R, R)
        if batch.phase == "discriminator":
            return StepOutput(adversary_loss(self.discriminator(true).float(), self.discriminator(painted).float()))
        weights = pixel_weights(hidden, self.overlap, self.overlap_weight)[self.painted]
        error = reconstruction_loss(painted, true, weights)
        if not self.adversarial:
            return StepOutput(error)
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooling = F.softplus(-functional_call(self.discriminator, frozen, painted).float()).mean()  # -log D
        logs = {"error": error, "fooling": fooling}
        return StepOutput((1 - self.adversarial) * error + self.adversarial * fooling, logs)

    def hidden(self, batch: Batch) -> Tensor:
        """Choose which pixels are hidden: (B, 1, H, W) bool."""
        size = batch.views[0].shape[-1]
        if self.region == "center":
            corners = torch.full((len(batch), 1, 2), (size - self.hidden_side) // 2, device=batch.views[0].device)
        else:
            corners = batch.random("blocks").integers(size - self.hidden_side + 1, BLOCKS, 2)
        return squares(corners, self.hidden_side, size)

    def masked(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Give hidden pixels the mean color (section 3.3: zero, after centering)."""
        return torch.where(hidden, self.encoder.mean, images)

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show what is left of the pictures."""
        return {"masked": self.masked(batch.views[0], self.hidden(batch))}

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Return the parameters of the discriminator, at its own rate, or those of encoder and decoder."""
        if phase == "discriminator":
            return [{**group, "lr_scale": self.discriminator_rate} for group in decay_groups(self.discriminator)]
        return decay_groups(self.encoder, self.decoder)


class Decoder(nn.Module):
    """A layer within each channel, then convolutions that double the maps to the painted part.

    Args:
        inputs: c, the channels of the encoder's maps.
        size: n, their height and width.
        channels: C, of pictures.
        side: R, height and width of what is painted, in pixels.
        width: Channels at full resolution.
    """

    def __init__(self, inputs: int, size: int, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.within_channels = ChannelwiseLinear(inputs, size)
        doublings = max(0, math.ceil(math.log2(side / size)))
        self.up = picture_decoder(inputs, channels, doublings, width)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, c, n, n) to pictures (B, C, R, R) in [0, 1]."""
        painted: Tensor = self.up(self.within_channels(maps))
        if painted.shape[-1] == self.side:
            return painted
        return F.interpolate(painted, size=(self.side, self.side), mode="bilinear")


class ChannelwiseLinear(nn.Module):
    """Connects every place of a map to every place of the same channel, each channel with weights of its own.

    Args:
        channels: m, of the maps.
        size: n, their height and width; there are m n^4 weights (section 3.1).
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, size**2, size**2).uniform_(-1 / size, 1 / size))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, m, n, n) to maps of the same shape."""
        return torch.einsum("bmi,mij->bmj", maps.flatten(2), self.weight).view_as(maps)


def map_layout(encoder: Encoder, image_size: int) -> tuple[int, int]:
    """Find the channels of an encoder's last maps, and their height and width."""
    training, passes = encoder.training, encoder.passes
    blank = torch.zeros(1, len(encoder.mean), image_size, image_size, device=encoder.mean.device)
    with torch.no_grad():
        maps = encoder.eval().feature_maps(blank)[-1]
    encoder.train(training)
    encoder.passes = passes
    return maps.shape[1], maps.shape[2]


def squares(corners: Tensor, side: int, size: int) -> Tensor:
    """Mark the pixels of squares.

    Args:
        corners: (B, N, 2) int64, the top and left of N squares a picture.
        side: Of a square, in pixels.
        size: H = W, of the pictures.

    Returns:
        (B, 1, H, W) bool.
    """
    places = torch.arange(size, device=corners.device)
    rows, columns = (
        (places >= first) & (places < first + side) for first in corners[..., None].unbind(dim=2)
    )  # each (B, N, size)
    return (rows[..., :, None] & columns[..., None, :]).any(dim=1, keepdim=True)


def pixel_weights(hidden: Tensor, overlap: int, overlap_weight: float) -> Tensor:
    """Weigh hidden pixels 1, those within ``overlap`` pixels of one ``overlap_weight``, and others 0: (B, 1, H, W)."""
    near = F.max_pool2d(hidden.float(), 2 * overlap + 1, stride=1, padding=overlap)
    return torch.where(hidden, 1.0, overlap_weight * near)


def reconstruction_loss(painted: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """Compute the squared error of equation 1, normalized, of pixels from -1 to 1.

    Args:
        painted: (B, C, R, R) in [0, 1].
        true: (B, C, R, R), likewise.
        weights: (B, 1, R, R), what a pixel's error counts; those of 0 are left out.

    Returns:
        (), the mean over the batch of a picture's weighted sum over its number of weighted values.
    """
    errors = (weights * (2 * (painted - true)).square()).sum(dim=(1, 2, 3))  # (B,)
    return (errors / (true.shape[1] * (weights > 0).sum(dim=(1, 2, 3)))).mean()


def adversary_loss(true: Tensor, painted: Tensor) -> Tensor:
    """Compute equation 2 with its sign turned, -log D - log(1 - D), from logits (B, 1) of true and painted parts."""
    return (F.softplus(-true) + F.softplus(painted)).mean()

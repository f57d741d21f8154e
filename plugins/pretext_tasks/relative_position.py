"""Relative position: of two patches of a picture that are neighbours, say where the second lies from the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import cut_pieces, enlarged_side, mlp, patch_grid, resized, tiled

GRID = 3  # patches along a side: the smallest grid in which a patch has all its eight neighbours
PATCHES = GRID * GRID
POSITIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # rows down, columns right
GREEN_MAGENTA = (-1.0, 2.0, -1.0)  # a of section 3.1, in red, green and blue
NOISE = 0.01  # deviation of what replaces a channel, as a part of the remaining channel's (section 3.1)
LEAST_SCALE = 1 / 255  # a patch of less contrast than one gray level is not blown up to noise

Colors = Literal["drop", "project", "keep"]


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the prediction of relative positions."""
    register(
        "relative_position",
        RelativePosition,
        summary="Predicts at which of eight places beside a patch another one lies.",
        source="Doersch et al. 2015, https://arxiv.org/abs/1505.05192",
        version=1,
    )


class RelativePosition(PretextTask):
    """Context prediction (Doersch et al. 2015, section 3).

    Patches are cut on a grid with gaps of about half a patch, each moved by a few pixels at random, so that neither
    edges nor textures that go on tell the position (section 3.1). Each is encoded once and takes part in all pairs with
    its neighbours, as in section 3.2: 40 ordered pairs of 9 patches. A network on both features says which of the eight
    positions the second patch has, seen from the first.
    As networks find a patch's place in the picture by chromatic aberration, colors are dropped or projected
    (section 3.1): of each patch one random channel stays and noise replaces the others; or all pixels lose what lies
    along the axis from green to magenta, also of the pictures that are evaluated. Then each channel has its mean
    subtracted and each patch is divided by its root mean square, as in the authors' code
    (https://github.com/cdoersch/deepcontext).
    Sizes are the paper's as parts of a grid of 398 px, three patches of 96 px with gaps of 48 px and 7 px to move
    around: at 32 px, patches have 7 px, are 4 or 5 px apart, and move by 1 px.
    The paper states no learning rate: rate, momentum and weight decay are the authors' code's, whose loss is summed
    over pairs. Section 3.2 notes that momentum as high as 0.999 speeds learning up.
    Differs from the paper: the encoder's feature takes fc6's place; the head's BatchNorm has scale and shift, and is on
    its last hidden layer too; no patch is made coarse and large again (a third of them, down to 100 pixels of 9216, in
    the authors' code); nine patches of a random crop take the place of a grid over the whole picture. Noise in place of
    dropped channels is the paper's; the authors' code has uniform noise.

    Args:
        encoder: Maps patches to features (B, D).
        data: Its image size is the grid's.
        patch: A patch's side as a part of the picture's; rounded down to pixels (section 3.2: 96 of 398).
        jitter: How far a patch is moved at most, as a part of its side; rounded to pixels (section 3.2: 7 of 96). Three
            patches with room to move must fit along a side.
        colors: Whether all channels but one are dropped, colors projected, or left (section 3.1: either of the first).
        enlarged: By what patches are enlarged for the encoder, at least 1: to bring patches of small pictures closer to
            the size that is evaluated. They also become multiples of the encoder's smallest size.
        hidden_dim: Width of the two hidden layers on pairs (figure 3: 4096).

    Raises:
        ClvrBenchError: An option is out of its range, or there are no colors to project.
    """

    views = 1
    separable = True
    default_augmentation = "crop"
    recipe = Recipe(  # the authors' code: 1e-5 a pair, of which a picture has 40
        optimizer="momentum",
        learning_rate=4e-4,
        reference_batch=1,
        momentum=0.0,
        weight_decay=0.0,
        warmup=0.0,
        schedule="constant",
    )
    check_options: ClassVar[Mapping[str, Any]] = {"hidden_dim": 64}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        patch: float = 0.24,
        jitter: float = 7 / 96,
        colors: Colors = "drop",
        enlarged: float = 1.0,
        hidden_dim: int = 4096,
    ) -> None:
        super().__init__()
        if not (patch > 0 and jitter >= 0 and GRID * patch * (1 + 2 * jitter) <= 1 and enlarged >= 1):
            raise ClvrBenchError(
                "relative_position: patch must be positive, jitter not negative, three patches with room to move, "
                f"3 * patch * (1 + 2 * jitter), at most 1, and enlarged at least 1, got {patch}, {jitter} and "
                f"{enlarged}. The paper's are 0.24, 7/96 and 1."
            )
        if colors == "project" and data.channels != len(GREEN_MAGENTA):
            raise ClvrBenchError(
                f"relative_position: colors='project' needs 3 channels, the data have {data.channels}. Use 'drop'."
            )
        side = max(1, int(patch * data.image_size))
        self.encoder, self.colors = encoder, colors
        self.cut = Cut(side, round(jitter * side), enlarged_side(side, enlarged, encoder.minimum_size))
        self.pairs: Tensor
        self.register_buffer("pairs", torch.tensor(neighbours()), persistent=False)  # (40, 3)
        self.solver = mlp(2 * encoder.feature_dim, hidden_dim, hidden_dim, len(POSITIONS))

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of the positions of all pairs."""
        features = self.encoder(self.patches(batch).flatten(0, 1), normalize=False)  # (9B, D)
        first, second, position = self.pairs.T
        pairs = features.view(len(batch), PATCHES, -1)[:, torch.stack([first, second], dim=1)]  # (B, 40, 2, D)
        logits = self.solver(pairs.flatten(0, 1).flatten(1)).float()  # (40B, 8)
        target = position.repeat(len(batch))
        accuracy = 100 * (logits.argmax(dim=1) == target).float().mean()
        return StepOutput(loss=F.cross_entropy(logits, target), logs={"position_top1": accuracy})

    def patches(self, batch: Batch) -> Tensor:
        """Return what the encoder sees: (B, 9, C, S, S), row by row."""
        images = project_colors(batch.views[0]) if self.colors == "project" else batch.views[0]
        patches = self.cut(images, batch.random)
        patches = patches - patches.mean(dim=(-2, -1), keepdim=True)
        if self.colors == "drop":
            patches = drop_colors(patches, batch.random)
        scale = patches.square().mean(dim=(-3, -2, -1), keepdim=True).sqrt()
        return patches / scale.clamp(min=LEAST_SCALE)

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the patches as they are cut, and as the encoder sees them, from -4 to 4."""
        gap = max(1, self.cut.side // 2)
        as_cut, seen = self.cut(batch.views[0], batch.random), self.patches(batch) / 8 + 0.5
        return {"patches": tiled(as_cut.clamp(0, 1), gap), "seen": tiled(seen.clamp(0, 1), gap)}

    def representation(self) -> nn.Module:
        """Return the encoder, behind the projection where pictures are projected."""
        return nn.Sequential(ProjectColors(), self.encoder) if self.colors == "project" else self.encoder


@dataclass(frozen=True)
class Cut:
    """Pictures into patches of a grid.

    Attributes:
        patch: P, a patch's side in pixels.
        jitter: How far it is moved at most, up or down and left or right, in pixels.
        side: S, what it is enlarged to, in pixels.
    """

    patch: int
    jitter: int
    side: int

    def __call__(self, images: Tensor, random: SampleRandom) -> Tensor:
        """Cut pictures (B, C, H, W) into patches (B, 9, C, S, S), row by row."""
        rooms = patch_grid(images, self.patch + 2 * self.jitter, GRID)
        corners = random("jitter").integers(2 * self.jitter + 1, PATCHES, 2)
        patches = cut_pieces(rooms, self.patch, corners)  # (B, 9, C, P, P)
        return resized(patches, self.side)


class ProjectColors(nn.Module):
    """The projection as a layer."""

    def forward(self, images: Tensor) -> Tensor:
        """Project pictures (B, 3, H, W)."""
        return project_colors(images)


def neighbours() -> list[tuple[int, int, int]]:
    """List all ordered pairs of neighbours: the first patch's number, the second's, and that of its position."""
    places = list(product(range(GRID), repeat=2))
    return [
        (number, places.index((row + down, column + right)), position)
        for number, (row, column) in enumerate(places)
        for position, (down, right) in enumerate(POSITIONS)
        if (row + down, column + right) in places
    ]


def project_colors(images: Tensor) -> Tensor:
    """Take what lies along the axis from green to magenta out of pixels (..., 3, H, W): B of section 3.1.

    The axis is orthogonal to gray, so gray stays. Values may leave [0, 1].
    """
    axis = torch.tensor(GREEN_MAGENTA, device=images.device, dtype=images.dtype)[:, None, None]
    share = (images * axis).sum(dim=-3, keepdim=True) / axis.square().sum()
    return images - share * axis


def drop_colors(patches: Tensor, random: SampleRandom) -> Tensor:
    """Keep one random channel of each patch and put noise of a hundredth of its deviation in place of the others.

    Args:
        patches: (B, 9, C, S, S), each channel with mean 0.
        random: The samples' draws.
    """
    channels = patches.shape[2]
    kept = random("channel").integers(channels, PATCHES, 1)  # (B, 9, 1)
    kept = (kept == torch.arange(channels, device=patches.device))[..., None, None]  # (B, 9, C, 1, 1)
    deviation = (patches * kept).square().sum(dim=2, keepdim=True).mean(dim=(-2, -1), keepdim=True).sqrt()
    noise = NOISE * deviation * random("noise").normal(*patches.shape[1:])
    return torch.where(kept, patches, noise)

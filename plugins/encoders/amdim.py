"""AMDIM's encoders: residual networks without padding, so that what a place sees of the picture is bounded."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Encoder, Register, hookimpl
from clvr_bench.toolbox import NORMALIZATIONS

SOURCE = "Bachman et al. 2019, https://arxiv.org/abs/1906.00910"


@hookimpl
def register_encoders(register: Register) -> None:
    """Register AMDIM-small and a narrow one for small pictures."""
    register(
        "amdim_small",
        partial(amdim_for_128, 192, 1536, 8),
        summary="AMDIM-small, for pictures of 128 px or more (194M).",
        source=f"{SOURCE}; sizes: https://github.com/Philip-Bachman/amdim-public",
        version=1,
    )
    register(
        "amdim_micro_32",
        partial(amdim_for_32, 24, 128, 3),
        summary="AMDIM's encoder for pictures of 32 px, narrow (0.5M), for suites on a CPU.",
        source=SOURCE,
        version=1,
    )


def amdim_for_128(width: int, feature_dim: int, depth: int, *, in_channels: int = 3) -> Encoder:
    """Build the encoder for ImageNet: of 128 px it makes maps of 64, 62, 30, 14, 7, 5, 3 and 1 px a side.

    Args:
        width: Channels of the stem (``ndf`` in the authors' code); they double three times.
        feature_dim: D, the length of a feature (``n_rkhs``).
        depth: Residual layers of a block, of which the first alone sees more than one place (``n_depth``).
        in_channels: C, the channels of its input.
    """
    halved = nn.Conv2d(in_channels, width, 5, stride=2, padding=2, padding_mode="reflect")
    stages = [
        nn.Sequential(halved, nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU()),
        block(width, 2 * width, kernel=4, stride=2, depth=depth),
        block(2 * width, 4 * width, kernel=4, stride=2, depth=depth),
        block(4 * width, 8 * width, kernel=2, stride=2, depth=depth),
        block(8 * width, 8 * width, kernel=3, stride=1, depth=depth),
        block(8 * width, 8 * width, kernel=3, stride=1, depth=depth),
        nn.Sequential(ResidualLayer(8 * width, feature_dim, kernel=3), nn.BatchNorm2d(feature_dim)),
    ]
    return AMDIMEncoder(stages, in_channels=in_channels, minimum_size=127)


def amdim_for_32(width: int, feature_dim: int, depth: int, *, in_channels: int = 3) -> Encoder:
    """Build the encoder for CIFAR: of 32 px it makes maps of 30, 14, 7, 5, 3 and 1 px a side.

    Args:
        width: Channels of the stem; they double twice.
        feature_dim: D, the length of a feature.
        depth: Residual layers of a block.
        in_channels: C, the channels of its input.
    """
    stages = [
        nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), ResidualLayer(width, width)),
        block(width, 2 * width, kernel=4, stride=2, depth=depth),
        block(2 * width, 4 * width, kernel=2, stride=2, depth=depth),
        block(4 * width, 4 * width, kernel=3, stride=1, depth=depth),
        block(4 * width, 4 * width, kernel=3, stride=1, depth=depth),
        nn.Sequential(ResidualLayer(4 * width, feature_dim, kernel=3), nn.BatchNorm2d(feature_dim)),
    ]
    return AMDIMEncoder(stages, in_channels=in_channels, minimum_size=32)


class AMDIMEncoder(Encoder):
    """AMDIM's encoder (Bachman et al. 2019, the paper on the encoder; layers and sizes as in the authors' code).

    Convolutions have no padding, and most layers see one place, so that a place of the 5 x 5 or the 7 x 7 map sees but
    a part of the picture. Only the feature, the last map, is normalized. The functions that embed those maps for
    AMDIM's loss belong to the task; the 194 million parameters that are reported do not count them either, with them
    they were 208. The paper's pictures have one size, whose last map has one place. Of larger ones it has more, and a
    feature is their mean, which the paper has no need of.

    Args:
        stages: Each makes a feature map of the one before.
        in_channels: C, the channels of its input.
        minimum_size: The picture whose last map has one place, in pixels a side.
    """

    def __init__(self, stages: list[nn.Sequential], *, in_channels: int, minimum_size: int) -> None:
        expected = NORMALIZATIONS["imagenet"].for_channels(in_channels)
        super().__init__(mean=expected.mean, std=expected.std, minimum_size=minimum_size)
        self.stages = nn.ModuleList(stages)

    def encode(self, images: Tensor) -> Tensor:
        """Map normalized pictures (B, C, H, W) to features (B, D), the mean of the last map."""
        return self.encode_maps(images)[-1].mean(dim=(2, 3))

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalized pictures (B, C, H, W) to the feature maps (B, c, h, w) of the stages, fine to coarse."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


def block(inputs: int, outputs: int, *, kernel: int, stride: int, depth: int) -> nn.Sequential:
    """Build a residual layer that sees more than one place, and further ones that see one: ``depth`` in all."""
    further = (ResidualLayer(outputs, outputs) for _ in range(depth - 1))
    return nn.Sequential(ResidualLayer(inputs, outputs, kernel=kernel, stride=stride), *further)


class ResidualLayer(nn.Module):
    """A convolution, a ReLU and a 1 x 1 convolution, added to the mean of what the first one saw.

    Channels that the input lacks are zero in that mean. The second convolution starts at zero.

    Args:
        inputs: Channels of the input (B, c, h, w).
        outputs: Channels of the output; a linear convolution takes the place of the mean where they are fewer.
        kernel: Height and width of what a place sees.
        stride: Places from one to the next.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 1, bias=False)
        nn.init.zeros_(self.second.weight)
        self.shorter = nn.Conv2d(inputs, outputs, kernel, stride) if outputs < inputs else None
        self.kernel, self.stride, self.missing = kernel, stride, outputs - inputs

    def forward(self, maps: Tensor) -> Tensor:
        """Add what is found to what is seen."""
        found: Tensor = self.second(F.relu(self.first(maps)))
        return found + self._seen(maps)

    def _seen(self, maps: Tensor) -> Tensor:
        if self.shorter is not None:
            shortened: Tensor = self.shorter(maps)
            return shortened
        mean = maps if self.kernel == 1 else F.avg_pool2d(maps, self.kernel, self.stride)
        return F.pad(mean, (0, 0, 0, 0, 0, self.missing)) if self.missing else mean

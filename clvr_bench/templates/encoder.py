"""PluginName: say in one sentence what kind of network it is."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from clvr_bench import ClvrBenchError, Encoder, Register, hookimpl


@hookimpl
def register_encoders(register: Register) -> None:
    """Register plugin_name."""
    register(
        "plugin_name",
        PluginName,
        summary="A plain convolutional network of four stages.",
        source="none",  # Edit: authors, year, link
        version=1,  # raise it with every edit that can change a score
    )


class PluginName(Encoder):
    """Four stages of a convolution each; every stage but the first halves the picture and doubles the channels.

    Args:
        width: Channels of the first stage, at least 1; features have eight times as many.
        in_channels: C, the channels of its input; some pretext tasks set it.

    Raises:
        ClvrBenchError: The width is below 1.
    """

    # Edit: keyword-only, typed arguments are its options: --set plugin_name.width=64
    def __init__(self, *, width: int = 32, in_channels: int = 3) -> None:
        # pictures arrive in [0, 1]; the harness subtracts this mean and divides by this deviation
        super().__init__(mean=[0.5] * in_channels, std=[0.25] * in_channels, minimum_size=8)
        if width < 1:
            rule = "width must be at least 1"
            raise ClvrBenchError(f"encoder plugin_name: {rule}, got {width}. Typical: 16 to 64.")
        widths = [in_channels, *(width * 2**stage for stage in range(4))]
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, stride=1 if number == 0 else 2)
            for number, (inputs, outputs) in enumerate(pairwise(widths))
        )

    def encode(self, images: Tensor) -> Tensor:
        """Map normalized pictures (B, C, H, W) to features (B, D), the means of the last feature map."""
        return self.encode_maps(images)[-1].mean(dim=(2, 3))

    # Edit: leave this out, and pool in encode, if your network has no feature maps
    def encode_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalized pictures (B, C, H, W) to the feature maps (B, c, h, w) of the stages, fine to coarse."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

"""Raw pixels: the yardstick without any network."""

from __future__ import annotations

from torch import nn

from clvr_bench import DataFacts, PretextTask, Register, hookimpl


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the pixels themselves."""
    register("raw_pixels", RawPixels, summary="Yardstick: the pixels themselves, no network.", source="none", version=1)


class RawPixels(PretextTask):
    """The representation is the picture's pixels, flattened to (B, C * H * W).

    Args:
        encoder: None.
        data: Unused.
    """

    views = 0
    trains = False
    uses_encoder = False
    ranked = False

    def __init__(self, encoder: None, data: DataFacts) -> None:
        super().__init__()
        self.pixels = nn.Flatten()

    def representation(self) -> nn.Module:
        """Return the module that flattens pictures (B, C, H, W)."""
        return self.pixels

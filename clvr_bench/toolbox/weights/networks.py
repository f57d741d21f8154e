"""Which network a set of names and shapes is of, so that a refusal can say what would have fitted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}


def network_of(shapes: Mapping[str, Sequence[int]]) -> str:
    """Say what network has parameters of such names and shapes.

    Args:
        shapes: By name, as timm has them.

    Returns:
        Such as ``"resnet50 with a 7x7 stem"``; empty where it is not recognized.
    """
    stem, patches = shapes.get("conv1.weight", ()), shapes.get("patch_embed.proj.weight", ())
    if len(stem) == 4 and "layer4.0.conv1.weight" in shapes:
        return _resnet(shapes, stem)
    if len(patches) == 4:
        return _vision_transformer(shapes, patches)
    return ""


def _resnet(shapes: Mapping[str, Sequence[int]], stem: Sequence[int]) -> str:
    blocks = tuple(_count(shapes, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    depth = _DEPTHS.get(("layer1.0.conv3.weight" in shapes, blocks))
    name = f"resnet{depth}" if depth else f"a ResNet of {'-'.join(map(str, blocks))} blocks"
    width = "" if stem[0] == 64 else f", {stem[0]} channels wide"
    small = f" (such as {name}_small)" if depth in (18, 50) and stem[2] == 3 and not width else ""
    return f"{name} with a {stem[2]}x{stem[3]} stem{width}{small}"


def _vision_transformer(shapes: Mapping[str, Sequence[int]], patches: Sequence[int]) -> str:
    width, _, size, _ = patches
    name = f"vit_{_WIDTHS[width]}_patch{size}" if width in _WIDTHS else "a vision transformer"
    blocks = _count(shapes, r"blocks\.(\d+)\.")
    return f"{name}, {blocks} blocks {width} wide on patches of {size} px"


def _count(shapes: Mapping[str, Sequence[int]], pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})

"""Every timm network under its own name, unchanged."""

from __future__ import annotations

from functools import partial

from timm import list_models

from clvr_bench import Register, hookimpl
from clvr_bench.toolbox import TimmEncoder


@hookimpl
def register_encoders(register: Register) -> None:
    """Register timm's networks as a family."""
    register.family(
        "timm",
        names=list_models,
        factory=lambda name: partial(TimmEncoder.named, name),
        summary="Every network of timm, as timm has it, randomly initialized.",
        source="timm (Wightman 2019), https://github.com/huggingface/pytorch-image-models",
        version=1,
    )

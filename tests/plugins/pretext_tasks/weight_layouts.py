"""Checkpoints as projects lay them out: networks that are small or real, with the heads and wrappers around them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_torchvision import MaskedVisionTransformerTorchvision
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clvr_bench.toolbox import TimmEncoder

State = Mapping[str, Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PIXELS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def resnet(width: int = 8, stem: int = 7, **options: Any) -> ResNet:
    """A narrow ResNet of timm's, with torchvision's names."""
    channels = (width, 2 * width, 4 * width, 8 * width)
    network = ResNet(BasicBlock, (1, 1, 1, 1), channels=channels, stem_type="deep", stem_width=width // 2, **options)
    network.conv1 = nn.Conv2d(3, width, stem, stride=2, padding=stem // 2, bias=False)
    return network


def small_resnet(**options: Any) -> ResNet:
    """The same for small pictures: a 3x3 stem, no max-pooling."""
    network = resnet(stem=3, **options)
    network.conv1.stride, network.maxpool = (1, 1), nn.Identity()
    return network


def vit(**options: Any) -> VisionTransformer:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, **options)


def torchvision_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=192)


def scrambled(module: nn.Module) -> nn.Module:
    """Let every parameter and every statistic differ from what a fresh network has."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = 0.2 * torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if name.endswith("running_var") else noise * (tensor if tensor.ndim > 1 else 1))
    return module.eval()


def prefixed(state: State, *prefixes: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for prefix in prefixes for name, tensor in state.items()}


def head(*names: str) -> dict[str, Tensor]:
    return {name: torch.randn(4, 4) for name in names}


def optimizer(state: State) -> dict[str, Any]:
    """The state of one that has moments of every parameter."""
    moments = {
        number: {"exp_avg": tensor.clone(), "step": torch.tensor(3.0)} for number, tensor in enumerate(state.values())
    }
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": list(moments)}]}


@dataclass(frozen=True)
class Layout:
    """A way to lay a network out in a file.

    Attributes:
        format: What it should be recognized as.
        source: Builds the network as its project has it.
        encoder: Builds the timm network that it is to be loaded into.
        content: From the source network's state to what is written.
        normalization: Mean and standard deviation of the inputs that it was trained on.
        features: Of the source network on normalized pictures.
    """

    format: str
    source: Callable[[], nn.Module]
    encoder: Callable[..., nn.Module]
    content: Callable[[State], Any]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    features: Callable[[nn.Module, Tensor], Tensor] = lambda network, pictures: network(pictures).flatten(1)

    def write(self, path: Path) -> nn.Module:
        """Write a checkpoint and return the source network."""
        network = scrambled(self.source())
        torch.save(self.content(network.state_dict()), path)
        return network

    def build(self) -> TimmEncoder:
        """Build an encoder with fresh weights."""
        return TimmEncoder(self.encoder(num_classes=0))


def headless(build: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: build(num_classes=0)


def beheaded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Take torchvision's classifier off, so that the network gives features; the checkpoint keeps one all the same."""

    def built() -> nn.Module:
        network = build()
        name = "fc" if hasattr(network, "fc") else "heads"
        setattr(network, name, nn.Identity())
        return network

    return built


def children(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """All of a network's children but its classifier, in a row, as lightly's examples have it."""
    return lambda: nn.Sequential(*list(build().children())[:-1])


def simclr_by_lightly(state: State) -> dict[str, Any]:
    projector = SimCLRProjectionHead(512, 512, 128)
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {**prefixed(state, "backbone."), **prefixed(projector.state_dict(), "projection_head.")},
        "optimizer_states": [optimizer(state)],
        "hyper_parameters": {"batch_size": 256},
    }


def resnet_children_without_pooling() -> nn.Module:
    network = small_resnet(num_classes=0)
    return nn.Sequential(*(child for name, child in network.named_children() if name not in ("maxpool", "fc")))


LAYOUTS = {
    "timm": Layout(
        "timm", headless(resnet), resnet, lambda s: {**s, **head("fc.weight", "fc.bias")}
    ),
    "timm, averaged": Layout(
        "timm", headless(resnet), resnet,
        lambda s: {
            "state_dict": {name: tensor + 1 for name, tensor in prefixed(s, "module.").items()},
            "state_dict_ema": {**s, **head("fc.weight")},
            "optimizer": optimizer(s),
            "args": Namespace(model="resnet", output=Path("somewhere")),
        },
    ),
    "timm, compiled": Layout(
        "timm", headless(vit), vit, lambda s: {"model": {**prefixed(s, "_orig_mod."), **head("_orig_mod.head.weight")}}
    ),
    "torchvision's ResNet": Layout(
        "torchvision", beheaded(torchvision.models.resnet18), lambda **o: TimmEncoder.named("resnet18").network,
        lambda s: {**s, **head("fc.weight", "fc.bias")},
    ),
    "torchvision's reference training": Layout(
        "torchvision", headless(resnet), resnet,
        lambda s: {"state_dict": {**prefixed(s, "module."), **head("module.fc.weight")}, "arch": "resnet", "epoch": 90},
    ),
    "torchvision's transformer": Layout(
        "torchvision", beheaded(torchvision_vit), vit, lambda s: {**s, **head("heads.head.weight", "heads.head.bias")}
    ),
    "MoCo v2": Layout(
        "moco", headless(resnet), resnet,
        lambda s: {
            "epoch": 200, "arch": "resnet", "optimizer": optimizer(s),
            "state_dict": {
                **prefixed(s, "module.encoder_q."),
                **{name: tensor + 1 for name, tensor in prefixed(s, "module.encoder_k.").items()},
                **head("module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.weight", "module.encoder_k.fc.0.weight"),
                "module.queue": torch.randn(4, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.long),
            },
        },
    ),
    "MoCo v3": Layout(
        "moco", headless(vit), vit,
        lambda s: {
            "epoch": 300, "scaler": {"scale": 2.0},
            "state_dict": {
                **prefixed(s, "module.base_encoder."),
                **{name: tensor + 1 for name, tensor in prefixed(s, "module.momentum_encoder.").items()},
                **head("module.base_encoder.head.0.weight", "module.momentum_encoder.head.0.weight"),
                **head("module.predictor.0.weight", "module.predictor.1.running_mean"),
            },
        },
    ),
    "SimCLR with a backbone": Layout(
        "simclr", headless(resnet), resnet,
        lambda s: {"state_dict": {**prefixed(s, "backbone."), **head("backbone.fc.0.weight", "backbone.fc.2.weight")}},
        PIXELS,
    ),
    "SimCLR with an encoder": Layout(
        "simclr", headless(resnet), resnet,
        lambda s: {**prefixed(s, "module.encoder."), **head("module.projector.0.weight", "module.projector.2.weight")},
        PIXELS,
    ),
    "SimCLR in a row": Layout(
        "simclr", resnet_children_without_pooling, small_resnet,
        lambda s: {**prefixed(s, "f."), **head("g.0.weight", "f.0.total_ops", "total_params")},
        ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ),
    "BYOL": Layout(
        "byol", headless(resnet), resnet,
        lambda s: {
            **prefixed(s, "net.", "online_encoder.net."),
            **{name: tensor + 1 for name, tensor in prefixed(s, "target_encoder.net.").items()},
            **head("online_encoder.projector.0.weight", "online_encoder.net.fc.weight", "online_predictor.0.weight"),
        },
    ),
    "SwAV": Layout(
        "swav", headless(resnet), resnet,
        lambda s: {**prefixed(s, "module."), **head("module.projection_head.0.weight", "module.prototypes.weight")},
        ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
    ),
    "DINO": Layout(
        "dino", headless(vit), vit,
        lambda s: {
            "student": {name: tensor + 1 for name, tensor in prefixed(s, "module.backbone.").items()},
            "teacher": {**prefixed(s, "backbone."), **head("head.mlp.0.weight", "head.last_layer.weight_g")},
            "args": Namespace(arch="vit_small"), "dino_loss": head("center"),
        },
    ),
    "DINO, its backbone": Layout("dino", headless(vit), vit, dict),
    "MAE": Layout(
        "mae", headless(vit), vit,
        lambda s: {
            "model": {**s, **head("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.bias")},
            "optimizer": optimizer(s), "args": Namespace(output_dir=Path("/tmp")), "epoch": 800,
        },
    ),
    "Barlow Twins": Layout(
        "barlow_twins", headless(resnet), resnet,
        lambda s: {
            "epoch": 1000,
            "model": {**prefixed(s, "module.backbone."), **head("module.projector.0.weight", "module.bn.running_mean")},
        },
    ),
    "VICReg": Layout(
        "vicreg", headless(resnet), resnet,
        lambda s: {"model": {**prefixed(s, "backbone."), **head("projector.0.weight")}, "optimizer": optimizer(s)},
    ),
    "VISSL": Layout(
        "vissl", headless(resnet), resnet,
        lambda s: {
            "phase_idx": 9, "loss": {"name": "simclr"},
            "classy_state_dict": {
                "base_model": {"model": {"trunk": prefixed(s, "_feature_blocks."), "heads": head("0.clf.0.weight")}},
                "optimizer": optimizer(s),
            },
        },
    ),
    "solo-learn": Layout(
        "solo", headless(small_resnet), small_resnet,
        lambda s: {
            "pytorch-lightning_version": "1.9.0", "loops": {"fit_loop": {}}, "optimizer_states": [optimizer(s)],
            "state_dict": {
                **prefixed(s, "backbone."),
                **{name: tensor + 1 for name, tensor in prefixed(s, "momentum_backbone.").items()},
                **head("classifier.weight", "projector.0.weight", "momentum_projector.0.weight", "queue", "queue_ptr"),
            },
        },
    ),
    "solo-learn, older": Layout(
        "solo", headless(resnet), resnet,
        lambda s: {"state_dict": {**prefixed(s, "encoder."), **head("classifier.bias", "projector.0.weight")}},
    ),
    "lightly's SimCLR": Layout(
        "lightly", children(torchvision.models.resnet18), lambda **o: TimmEncoder.named("resnet18").network,
        simclr_by_lightly,
    ),
    "lightly's DINO": Layout(
        "lightly", children(torchvision.models.resnet18), lambda **o: TimmEncoder.named("resnet18").network,
        lambda s: {
            **prefixed(s, "teacher_backbone."),
            **{name: tensor + 1 for name, tensor in prefixed(s, "student_backbone.").items()},
            **head("student_head.layers.0.weight", "teacher_head.layers.0.weight", "criterion.center"),
        },
    ),
    "lightly's benchmarks": Layout(
        "lightly", headless(resnet), resnet,
        lambda s: {
            "state_dict": {
                **prefixed(s, "backbone."),
                **{name: tensor + 1 for name, tensor in prefixed(s, "query_backbone.").items()},
                **head("query_projection_head.layers.0.weight", "online_classifier.linear.weight"),
            }
        },
    ),
    "lightly's MAE on timm": Layout(
        "lightly", lambda: MaskedVisionTransformerTIMM(vit=vit(num_classes=0)), vit,
        lambda s: {"state_dict": {**prefixed(s, "backbone."), **head("decoder.decoder_embed.weight")}},
    ),
    "lightly's MAE on torchvision": Layout(
        "lightly", lambda: MaskedVisionTransformerTorchvision(vit=torchvision_vit()), vit,
        lambda s: {"state_dict": {**prefixed(s, "backbone."), **head("decoder.decoder_embed.weight", "mask_token")}},
    ),
}  # fmt: skip
"""By what they are: those of lightly, timm and torchvision with their real modules, the others by their names."""

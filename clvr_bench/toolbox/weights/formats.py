"""How projects lay their checkpoints out, as data: where the state is, what prefixes and names it has, which heads.

Each was read off the project's own code, at the link that it carries. Names are translated to timm's, which are
torchvision's for ResNets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clvr_bench.contracts.encoder import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Normalization:
    """What is subtracted from pictures in [0, 1], and what they are then divided by.

    Attributes:
        mean: One number a channel.
        std: Likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_channels(self, count: int) -> Normalization:
        """Return it for so many channels: its averages where it is for another number."""
        if count == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return Normalization((mean,) * count, (std,) * count)


IMAGENET = Normalization(IMAGENET_MEAN, IMAGENET_STD)
NONE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CIFAR10 = Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_SWAV = Normalization(IMAGENET_MEAN, (0.228, 0.224, 0.225))  # 0.228, not 0.229, is what its code has
_LEFTTHOMAS = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # likewise, for CIFAR-10

NORMALIZATIONS = {"cifar10": CIFAR10, "cifar100": CIFAR100, "half": HALF, "imagenet": IMAGENET, "none": NONE}
"""Those that go by a name."""


@dataclass(frozen=True)
class WeightFormat:
    """One layout of a project's checkpoints; a project that has several has as many of these under one name.

    Attributes:
        name: What it is called.
        source: The code that it was read off.
        roots: Where the state may lie, nested names joined by dots; names elsewhere are no concern of the format.
        prefixes: One of these is in front of the encoder's names, below the root.
        marks: A regular expression that one of the encoder's names must begin with, or the layout is not the file's.
        renames: Regular expressions and what to put in their place, all in turn, on names without root and prefix.
        left_out: Regular expressions for what is known not to be the encoder's: heads, targets, queues. They are
            matched from the start of names without root and, where they have it, prefix.
        normalization: Of the inputs that the weights were trained on; None where that is the encoder's own.
    """

    name: str
    source: str
    roots: tuple[str, ...] = ("",)
    prefixes: tuple[str, ...] = ("",)
    marks: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    normalization: Normalization | None = IMAGENET


def _children(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Rename the numbers that a Sequential of a network's children has; an empty name is a child without weights."""
    return tuple((rf"^{number}\.", f"{name}.") for number, name in enumerate(names) if name)


_STAGES = ("layer1", "layer2", "layer3", "layer4")
_WITH_POOLING = _children(("conv1", "bn1", "", "", *_STAGES))
_WITHOUT_POOLING = _children(("conv1", "bn1", "", *_STAGES))
_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)
_PLAIN_HEADS = (r"(fc|head|head_dist|heads|classifier)\.",)
_SOLO_PARTS = (
    r"(momentum_)?(projector|predictor|classifier|head)\.", r"momentum_(backbone|encoder)", r"decoder\.", r"queue",
    r"prototypes", r"dino_loss_func\.",
)  # fmt: skip
_LIGHTLY_PARTS = (
    r"(\w+_)?(projection|prediction|student|teacher)_head", r"(student|query|momentum)_backbone", r"backbone_momentum",
    r"prototypes", r"online_classifier", r"criterion", r"memory_bank", r"decoder",
    r"((teacher_)?backbone\.)?mask_token",
)  # fmt: skip
_LIGHTLY = "https://github.com/lightly-ai/lightly/tree/master/examples/pytorch_lightning"
_GITHUB = "https://github.com"

WEIGHT_FORMATS = (
    WeightFormat(
        "timm",
        f"{_GITHUB}/huggingface/pytorch-image-models/blob/main/timm/models/_helpers.py",
        roots=("", "state_dict_ema.", "model_ema.", "state_dict.", "model."),  # averaged weights first, as timm has it
        prefixes=("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."),
        left_out=_PLAIN_HEADS,
        normalization=None,
    ),
    WeightFormat(
        "torchvision",
        f"{_GITHUB}/pytorch/vision/blob/main/torchvision/models/vision_transformer.py",
        roots=("", "state_dict.", "model."),
        prefixes=("", "module."),
        marks=r"(conv1|features|encoder\.layers)\.",  # or it would claim timm's transformers too
        renames=_TORCHVISION_VIT,
        left_out=_PLAIN_HEADS,
    ),
    WeightFormat(
        "moco",
        f"{_GITHUB}/facebookresearch/moco/blob/main/main_lincls.py",
        roots=("state_dict.", ""),
        prefixes=("module.encoder_q.", "encoder_q."),
        left_out=(r"fc\.", r"(module\.)?encoder_k\.", r"(module\.)?queue(_ptr)?$"),
    ),
    WeightFormat(
        "moco",  # version 3
        f"{_GITHUB}/facebookresearch/moco-v3/blob/main/main_lincls.py",
        roots=("state_dict.", ""),
        prefixes=("module.base_encoder.", "base_encoder."),
        left_out=(r"(fc|head)\.", r"(module\.)?(momentum_encoder|predictor)\."),
    ),
    WeightFormat(
        "simclr",
        f"{_GITHUB}/sthalles/SimCLR/blob/master/models/resnet_simclr.py",
        roots=("state_dict.", ""),
        prefixes=("backbone.",),
        left_out=(r"fc\.",),
        normalization=NONE,
    ),
    WeightFormat(
        "simclr",
        f"{_GITHUB}/Spijkervet/SimCLR/blob/master/simclr/simclr.py",
        prefixes=("encoder.", "module.encoder."),
        left_out=(r"(module\.)?projector\.",),
        normalization=NONE,
    ),
    WeightFormat(
        "simclr",  # the authors' own, converted
        f"{_GITHUB}/tonylins/simclr-converter/blob/master/convert.py",
        roots=("state_dict.",),
        left_out=(r"fc\.",),
        normalization=NONE,
    ),
    WeightFormat(
        "simclr",
        f"{_GITHUB}/leftthomas/SimCLR/blob/master/model.py",
        prefixes=("f.", "module.f."),
        renames=_WITHOUT_POOLING,
        left_out=(r"(module\.)?g\.", r"(.*\.)?total_(ops|params)$"),  # a counter of operations leaves the latter
        normalization=_LEFTTHOMAS,
    ),
    WeightFormat(
        "byol",
        f"{_GITHUB}/lucidrains/byol-pytorch/blob/master/byol_pytorch/byol_pytorch.py",
        prefixes=("online_encoder.net.",),
        left_out=(
            r"(fc|head|heads)\.",
            r"net\.",
            r"online_encoder\.projector\.",
            r"target_encoder\.",
            r"online_predictor\.",
        ),
    ),
    WeightFormat(
        "swav",
        f"{_GITHUB}/facebookresearch/swav/blob/main/eval_linear.py",
        roots=("", "state_dict."),
        prefixes=("module.",),
        left_out=(r"projection_head\.", r"prototypes\."),
        normalization=_SWAV,
    ),
    WeightFormat(
        "dino",
        f"{_GITHUB}/facebookresearch/dino/blob/main/utils.py",
        roots=("teacher.", ""),
        prefixes=("backbone.", "module.backbone.", ""),
        left_out=(r"(module\.)?head\.",),
    ),
    WeightFormat(
        "mae",
        f"{_GITHUB}/facebookresearch/mae/blob/main/models_mae.py",
        roots=("model.",),
        left_out=(r"decoder_", r"mask_token$"),
    ),
    WeightFormat(
        "barlow_twins",
        f"{_GITHUB}/facebookresearch/barlowtwins/blob/main/main.py",
        roots=("model.",),
        prefixes=("module.backbone.",),
        left_out=(r"module\.(projector|bn)\.",),
    ),
    WeightFormat(
        "vicreg",
        f"{_GITHUB}/facebookresearch/vicreg/blob/main/main_vicreg.py",
        roots=("model.",),
        prefixes=("module.backbone.", "backbone."),
        left_out=(r"(module\.)?projector\.",),
    ),
    WeightFormat(
        "vissl",
        f"{_GITHUB}/facebookresearch/vissl/blob/main/extra_scripts/convert_vissl_to_torchvision.py",
        roots=("classy_state_dict.base_model.model.trunk.", "model_state_dict.", ""),
        prefixes=("_feature_blocks.",),
    ),
    WeightFormat(
        "solo",
        f"{_GITHUB}/vturrisi/solo-learn/blob/main/main_linear.py",
        roots=("state_dict.",),
        prefixes=("backbone.", "encoder."),
        left_out=_SOLO_PARTS,
    ),
    *(  # its own ResNet is not read: cut into a row of children it loses a ReLU, and no network of timm's computes that
        WeightFormat(
            "lightly",
            _LIGHTLY,
            roots=("state_dict.", ""),
            prefixes=prefixes,
            renames=renames,
            left_out=(r"heads?\.", *_LIGHTLY_PARTS),
        )
        for prefixes, renames in (
            (("backbone.", "teacher_backbone."), _WITH_POOLING),
            (("backbone.", "teacher_backbone.", "backbone.vit.", "teacher_backbone.vit."), _TORCHVISION_VIT),
        )
    ),
    WeightFormat(
        "clvr_bench",
        "clvr_bench/checkpoints.py",
        prefixes=("network.", ""),
        normalization=None,
    ),
)
"""All layouts, the likelier first."""

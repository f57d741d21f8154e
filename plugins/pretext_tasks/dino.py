"""DINO: views of a picture predict what a slow teacher, which sees the global ones, makes of another of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    DataFacts,
    Encoder,
    PretextTask,
    Progress,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import (
    MomentumTarget,
    cross_view_entropy,
    encode_by_size,
    global_views,
    growing_momentum,
    require,
)

_require = partial(require, "dino")


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register DINO."""
    register(
        "dino",
        DINO,
        summary="Views predict the centred, sharpened output of a momentum teacher for other, global views.",
        source="Caron et al. 2021, https://arxiv.org/abs/2104.14294",
        version=1,
    )


class DINO(PretextTask):
    """DINO (Caron et al. 2021, section 3.1, equations 1 to 4 and algorithm 1; section 3.2).

    The teacher sees the global views, all views where they are alike; the student sees all. Views of one size pass a
    network in one batch, as in the authors' code. What is evaluated is the teacher's encoder, as in that code, which
    is better than the student's throughout (section 5.2). Recipe and defaults are those for vision transformers, whose
    features are class tokens there; here they are what the encoder gives.
    Left open by the paper, taken from the authors' code: the last layer has no bias and rows of length 1, and stays
    fixed in the first epoch; linear layers of the head start from a normal of deviation 0.02, biases from 0.
    Differs from the paper: views are those of SwAV, without solarization, and local ones show at most 14% of a picture,
    where about 30% are best (appendix E); the weight decay stays at 0.04, where it rises to 0.4 along a cosine. The
    authors' code also clips gradients and drops paths of the student.

    Args:
        encoder: Maps pictures of several sizes to features (B, D).
        data: Unused.
        output_dim: K, the length of an output (appendix C: 65,536).
        hidden_dim: Width of the head's two hidden layers (section 3.1: 2048).
        bottleneck_dim: Length of what is normalized before the last layer (appendix C: 256).
        batch_norm: Whether hidden layers of the head have BatchNorm (appendix C: not, with vision transformers).
        student_temperature: tau_s of equation 1 (section 3.2: 0.1).
        teacher_temperature: tau_t at first and after its warm-up (section 3.2: 0.04 and 0.07).
        temperature_epochs: Epochs of that warm-up, linear and step by step (section 3.2: 30); 0 for none.
        center_momentum: m of equation 4, in [0, 1) (appendix D: 0.9, of 0 to 0.999 the best).
        target_momentum: lambda, what the teacher's momentum is at first, in [0, 1] (section 3.1: 0.996).
        freeze_epochs: Epochs at the start in which the last layer stays fixed.
    """

    views = "multi"
    separable = True
    default_augmentation = "multicrop"
    recipe = Recipe(  # section 3.2; 10 epochs warm up, here of the 300 of its ablations (section 5)
        optimizer="adamw", learning_rate=5e-4, weight_decay=0.04, warmup=0.033
    )
    moves = ("teacher", "center")
    check_options: ClassVar[Mapping[str, Any]] = {"output_dim": 64, "hidden_dim": 64, "bottleneck_dim": 32}
    center: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        output_dim: int = 65_536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        batch_norm: bool = False,
        student_temperature: float = 0.1,
        teacher_temperature: tuple[float, float] = (0.04, 0.07),
        temperature_epochs: int = 30,
        center_momentum: float = 0.9,
        target_momentum: float = 0.996,
        freeze_epochs: int = 1,
    ) -> None:
        super().__init__()
        _require(student_temperature > 0, "student_temperature must be positive", student_temperature, "Typical: 0.1.")
        rule, hint = "teacher_temperature must be two positive numbers", "Typical: (0.04, 0.07)."
        _require(min(teacher_temperature) > 0, rule, teacher_temperature, hint)
        _require(temperature_epochs >= 0, "temperature_epochs must not be negative", temperature_epochs, "Typical: 30.")
        _require(0 <= center_momentum < 1, "center_momentum must be in [0, 1)", center_momentum, "Typical: 0.9.")
        rule, hint = "target_momentum must be in [0, 1]", "Typical: 0.9 (short runs) to 0.996."
        _require(0 <= target_momentum <= 1, rule, target_momentum, hint)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.temperature_epochs, self.freeze_epochs = temperature_epochs, freeze_epochs
        self.center_momentum, self.target_momentum = center_momentum, target_momentum
        self.encoder = encoder
        self.head = Head(encoder.feature_dim, hidden_dim, bottleneck_dim, output_dim, batch_norm=batch_norm)
        self.teacher = MomentumTarget(self.encoder, self.head)
        self.register_buffer("center", torch.zeros(output_dim))

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 3: the cross-entropy of every global view's target with all other views' outputs."""
        sources, views = self._sources(batch), len(batch.views)
        frozen = batch.progress.epoch < self.freeze_epochs
        outputs = self.head(encode_by_size(self.encoder, batch.views), frozen=frozen).unflatten(0, (views, -1))
        taught = self.teacher(torch.cat([batch.views[view] for view in sources])).unflatten(0, (len(sources), -1))
        temperature = warming_temperature(self.teacher_temperature, self.temperature_epochs, batch.progress)
        log_targets = log_probabilities(taught - self.center, temperature)  # (G, B, K)
        log_p = log_probabilities(outputs, self.student_temperature)  # (V, B, K)
        loss = cross_view_entropy(log_p, log_targets.exp().unbind(), sources)
        entropy = -(log_targets.exp() * log_targets).sum(dim=-1).mean()
        return StepOutput(
            loss=loss,
            logs={"target_entropy": entropy, "divergence": loss.detach() - entropy},  # equation 5
            kept={"outputs": taught.mean(dim=0)},
        )

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the teacher towards the student, ever slower, and the centre towards its mean output (equation 4)."""
        self.teacher.follow(self.encoder, self.head, momentum=growing_momentum(self.target_momentum, progress))
        self.center.lerp_(kept["outputs"].mean(dim=0), 1 - self.center_momentum)

    def representation(self) -> nn.Module:
        """Return the teacher's encoder."""
        return self.teacher[0]

    def _sources(self, batch: Batch) -> list[int]:
        """Return the numbers of the views that the teacher sees."""
        sources, views = global_views(batch), len(batch.views)
        rule, found = "expected some global views among at least 2 views", batch.roles or f"{views} that are alike"
        _require(bool(sources) and views > 1, rule, found, "Use the augmentation 'multicrop'.")
        return sources


class Head(nn.Module):
    """The projection head (section 3.1 and appendix C): three layers with GELU, length 1, rows of length 1.

    Args:
        inputs: D, the length of a feature.
        hidden: Width of the two hidden layers.
        bottleneck: Length of what is normalized.
        outputs: K.
        batch_norm: Whether hidden layers are normalized over the batch.
    """

    def __init__(self, inputs: int, hidden: int, bottleneck: int, outputs: int, *, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, hidden):
            layers.append(nn.Linear(width, hidden, bias=not batch_norm))
            layers += [nn.BatchNorm1d(hidden), nn.GELU()] if batch_norm else [nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last = nn.Linear(bottleneck, outputs, bias=False)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, frozen: bool = False) -> Tensor:
        """Map features (B, D) to outputs (B, K), cosines in float32.

        Args:
            features: (B, D).
            frozen: Whether the last layer stays out of the gradient.
        """
        embeddings = self.layers(features)  # (B, P)
        weight = self.last.weight.detach() if frozen else self.last.weight
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(F.normalize(embeddings.float(), dim=1), F.normalize(weight, dim=1))


def log_probabilities(outputs: Tensor, temperature: float) -> Tensor:
    """Compute the logarithm of equation 1, a softmax over the last dimension of outputs (..., K)."""
    return F.log_softmax(outputs / temperature, dim=-1)


def warming_temperature(ends: tuple[float, float], epochs: int, progress: Progress) -> float:
    """Return a temperature that goes linearly from the first end to the second within so many epochs, and stays."""
    done = min(1.0, progress.fraction * progress.epochs / epochs) if epochs else 1.0
    return ends[0] + done * (ends[1] - ends[0])

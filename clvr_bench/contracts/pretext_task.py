"""The pretext task contract: a module that turns a batch of views into a loss, and names what is to be evaluated."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from clvr_bench.contracts.encoder import Encoder
from clvr_bench.contracts.recipe import Recipe
from clvr_bench.contracts.values import Batch, DataFacts, EncoderFacts, Phase, Progress, StepOutput

Labels = Literal["none", "fine", "coarse", "partial"]


class Epoch(Protocol):
    """What ``before_epoch`` may ask of the harness.

    Attributes:
        progress: Where the run stands.
    """

    progress: Progress

    def features(self, module: nn.Module) -> Tensor:
        """Run a module over every training picture (centre view, eval mode, no gradient): (N, D) in index order."""

    def images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield indices (B,) and centre views (B, C, H, W), float in [0, 1], over the training set in index order."""

    def visit(self, indices: Tensor) -> None:
        """Set this epoch's order: (N,) int64, repeats allowed; the budget stays N samples an epoch."""

    def reset(self, module: nn.Module) -> None:
        """Give a module fresh weights and clear their optimizer state."""


class PretextTask(nn.Module, ABC):
    """A pretext task. Built as ``factory(encoder, data, **options)``; keyword-only, typed arguments are its options.

    Attributes:
        views: V, how many views of each sample it asks of the augmentation; ``"multi"`` takes those that an
            augmentation with roles gives (two of one whose views are alike); 0 for tasks that take none.
        labels: Which labels it sees; anything but ``"none"`` marks its row.
        trains: False for yardsticks and ready-made weights: nothing is optimized.
        uses_encoder: False where the representation is not a network, such as raw pixels.
        ranked: False for yardsticks: listed, never ranked.
        separable: True where the loss is a mean over samples, so that gradient accumulation is exact.
        phases: The optimizer steps it cycles through; where an option says how often one repeats, set them from it.
        default_augmentation: What ``"default"`` in a suite means for it: a name, or several as a chain.
        recipe: Its paper's optimizer and schedule.
        moves: State that it moves itself, in ``after_step`` or ``before_epoch``: names of modules or buffers, such as
            ``("target", "queue")``; where an option leaves one out, set them from it. ``clvr-bench check`` holds it to
            them.
        check_options: Options under which ``clvr-bench check`` can try it on a few dozen small pictures, where its
            defaults ask for more, such as a queue that is longer than that.
        labelled_fraction: For ``"partial"``: the part of the training labels it may see; set it from an option.
        labelled_ratio: For ``"partial"``: labelled samples a step, as a multiple of the batch size.
    """

    views: ClassVar[int | Literal["multi"]] = 2
    labels: ClassVar[Labels] = "none"
    trains: ClassVar[bool] = True
    uses_encoder: ClassVar[bool] = True
    ranked: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    default_augmentation: ClassVar[str | tuple[str, ...]] = "simclr"
    recipe: ClassVar[Recipe] = Recipe()
    check_options: ClassVar[Mapping[str, Any]] = {}
    moves: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = (Phase("train"),)
    labelled_fraction: float = 0.1
    labelled_ratio: float = 1.0

    encoder: Encoder

    @classmethod
    def encoder_options(cls, **options: Any) -> dict[str, object]:
        """Return what the encoder must be built with, given the task's options; shown in the row."""
        return {}

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Say why a combination makes no sense, such as a masked task without patch tokens; None where it does."""
        return None

    @classmethod
    def reported_labels(cls, **options: Any) -> str:
        """Return which labels the row says were used, given the task's options; by default ``labels``.

        For tasks whose weights saw labels before they came here, and may see none themselves.
        """
        return cls.labels

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the loss of a batch. Moves no state but BatchNorm's; queues and targets move in ``after_step``."""
        raise NotImplementedError(f"{type(self).__name__} trains, so it must implement forward(batch)")

    def preview(self, batch: Batch) -> Mapping[str, Tensor]:
        """Show what the encoder sees where that is not the views as they are; ``clvr-bench preview`` draws it.

        Args:
            batch: B samples, as ``forward`` gets them. No gradient is needed, and no state may move.

        Returns:
            Pictures (B, C, H, W) by label, such as ``"90°"``: float in [0, 1], one channel or three, of any size.
            Empty where the encoder sees the views as they are.
        """
        return {}

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move queues, memory banks and target encoders; called once an optimizer step.

        Args:
            kept: What ``forward`` kept, of all ranks and accumulated parts, joined along the first dimension.
            progress: Of the step just taken.
        """

    def before_epoch(self, epoch: Epoch) -> None:
        """Prepare an epoch: clustering, priors. Tasks that do not train get one call, before they are frozen."""

    def representation(self) -> nn.Module:
        """Return what is frozen, evaluated, saved and counted: maps (B, C, H, W) in [0, 1] to features (B, D)."""
        return self.encoder

    def facts(self) -> Mapping[str, Any]:
        """Return what the run's record is to keep of it, as JSON has it, such as which file weights came from.

        Called once, when the run is done. Nothing of it is shown in tables.
        """
        return {}

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups for a phase; by default all that train, see ``decay_groups``."""
        return decay_groups(self)


def decay_groups(*modules: nn.Module) -> list[dict[str, Any]]:
    """Split modules' trainable parameters: weights decay; biases and normalization do not.

    timm's LARS adapts only groups whose weight decay is positive, so the second group also goes without its scaling,
    as SimCLR (Chen et al. 2020, section 2.3) and BYOL do.

    Returns:
        Two groups, as torch optimizers take them; the first inherits the recipe's weight decay.
    """
    trainable = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}.values()
    weights = [p for p in trainable if p.ndim > 1]
    others = [p for p in trainable if p.ndim <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]

"""What augmentations and pretext tasks do to pictures, as rows of labelled pictures; ``contact_sheets`` draws them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from clvr_bench.assembly import blaming, build_augmentation, build_task, encoder_facts
from clvr_bench.combinations import Choice, TaskChoice
from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import Batch, DataFacts, Images, Progress
from clvr_bench.errors import ClvrBenchError
from clvr_bench.options import resolve_options
from clvr_bench.samples import CHANNELS, Samples

DRAWS = 4  # views of a picture side by side, where they are drawn alike
PAIRS = 2  # pairs of views side by side


@dataclass(frozen=True)
class Picture:
    """One picture with what is written below it.

    Attributes:
        label: Empty for nothing; neighbours of one label share it.
        pixels: (C, H, W) float32 in [0, 1], C being 1 or 3.
    """

    label: str
    pixels: Tensor


Panel = tuple[Picture, ...]
"""Pictures that belong together, such as a pair of views."""


@dataclass(frozen=True)
class Row:
    """Something and what it does to each sample.

    Attributes:
        title: What it is called.
        detail: The setting in use and changed options; empty for none.
        cells: What is to be seen of each sample, panel by panel.
    """

    title: str
    detail: str
    cells: tuple[tuple[Panel, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """Everything that one preview shows.

    Attributes:
        head: The samples themselves.
        rows: What becomes of them.
        image_size: Of views, in pixels; all pictures but the head's are drawn at one scale.
    """

    head: Row
    rows: tuple[Row, ...]
    image_size: int


def head_row(samples: Samples, *, whole: bool) -> Row:
    """Show the pictures themselves.

    Args:
        samples: The pictures.
        whole: Whether as they are stored, or as views: their largest central square.
    """
    stored, views = samples.images, samples.views
    pixels = [_own_pixels(stored, place) for place in range(len(stored))] if whole else list(views)
    panels = [(Picture(label, picture),) for label, picture in zip(samples.labels, pixels, strict=True)]
    detail = f"views of {samples.image_size} px, seed {samples.seed}"
    return Row(samples.data.title, detail, tuple((panel,) for panel in panels))


def _own_pixels(images: Images, place: int) -> Tensor:
    """Return one stored picture (C, H, W) without its padding, float32 in [0, 1]."""
    height, width = images.sizes[place].tolist()
    pixels = images.pixels[place, :, :height, :width]
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def augmentation_row(chain: Sequence[Choice], samples: Samples) -> Row:
    """Show several draws of a chain of augmentations.

    Args:
        chain: At least one, in order.
        samples: The pictures.

    Raises:
        ClvrBenchError: It cannot be built, it raised, or what it made are not the views asked for.
    """
    name = " + ".join(choice.entry.name for choice in chain)
    with blaming(f"augmentation {name}", "its constructor"):
        augmentation = build_augmentation(tuple(chain), samples.facts("none"))
    assert augmentation is not None  # a chain has links
    panels = _views_by_panel(name, augmentation, samples)
    if not panels:
        raise ClvrBenchError(f"augmentation {name}: its roles ask for no views. Set roles in its constructor.")
    for panel in panels:
        if problem := picture_problem(panel, len(samples.index)):
            hint = f"Try: clvr-bench check {chain[-1].entry.name} --kind augmentation"
            raise ClvrBenchError(f"augmentation {name}: it must make views, but {problem}. {hint}")
    return Row(name, _detail(augmentation.setting, _changed(chain)), _cells(panels, len(samples.index)))


def _changed(chain: Sequence[Choice]) -> dict[str, Any]:
    """Return the options of all links that differ from their defaults; in a chain, by their link's name too."""
    if len(chain) == 1:
        return chain[0].changed_shown
    return {f"{choice.entry.name}.{key}": value for choice in chain for key, value in choice.changed_shown.items()}


Labelled = list[tuple[str, Tensor]]
"""A panel of all samples at once: labels with pictures (B, C, H, W)."""


def _views_by_panel(name: str, augmentation: Augmentation, samples: Samples) -> list[Labelled]:
    """Make labelled views as the augmentation arranges them: alike in one panel, pair by pair, or role by role."""
    if augmentation.arrangement == "alike":
        return [_views(name, augmentation, samples, [""] * DRAWS)]
    if augmentation.arrangement == "pair":
        return [_views(name, augmentation, samples, ["first view", "second view"], draw) for draw in range(PAIRS)]
    labels = [f"{role.name}, {role.size} px" for role in augmentation.roles for _ in range(role.views)]
    views = _views(name, augmentation, samples, labels)
    return [list(of_role) for _, of_role in groupby(views, key=itemgetter(0))]


def _views(name: str, augmentation: Augmentation, samples: Samples, labels: list[str], draw: int = 0) -> Labelled:
    with blaming(f"augmentation {name}", "making views"), torch.no_grad():
        views = list(augmentation(samples.images, len(labels), samples.random(draw).scoped("augmentation")))
    if len(views) != len(labels):
        raise ClvrBenchError(f"augmentation {name}: expected {len(labels)} views a picture, got {len(views)}.")
    return list(zip(labels, views, strict=True))


def transforms_views(task: type[PretextTask]) -> bool:
    """Whether a pretext task says that its encoder sees something else than the views."""
    return task.preview is not PretextTask.preview


def task_row(task: TaskChoice, encoders: Sequence[Choice], samples: Samples, given: Mapping[str, Any]) -> Row:
    """Show what a pretext task's encoder sees of views that no augmentation has changed.

    Args:
        task: The pretext task.
        encoders: It is built on the first of these that it runs with.
        samples: The pictures.
        given: The options that the row's detail names.

    Raises:
        ClvrBenchError: The task leaves views as they are, skips all encoders, cannot be built, raised, or showed no
            pictures.
    """
    name, contract = task.entry.name, task.task
    facts = samples.facts(contract.labels)
    encoder = _first_that_fits(task, encoders, facts) if contract.uses_encoder else None
    with blaming(name, "its constructor"), torch.random.fork_rng(devices=[]):
        built = build_task(task, encoder, samples.seed, facts).eval()
    with blaming(name, "preview"), torch.no_grad():
        shown = built.preview(_batch(built, samples))
    if problem := preview_problem(shown, len(samples.index)):
        raise ClvrBenchError(f"{name}: preview must show pictures, but {problem}. Try: clvr-bench check {name}")
    if not shown:
        raise ClvrBenchError(views_as_they_are(name))
    return Row(name, _detail("", given), _cells([list(shown.items())], len(samples.index)))


def views_as_they_are(name: str) -> str:
    """Say that a pretext task leaves its views as they are, and what to look at instead."""
    return (
        f"pretext task '{name}': its encoder sees the views as they are. "
        "See what makes them with: clvr-bench preview augmentations"
    )


def preview_problem(shown: object, count: int) -> str | None:
    """Say why something is not what ``PretextTask.preview`` must return of ``count`` samples; None where it is."""
    if not isinstance(shown, Mapping):
        return f"it returned {type(shown).__name__}, not pictures by label"
    return picture_problem(list(shown.items()), count)


def picture_problem(pictures: Iterable[tuple[str, Any]], count: int) -> str | None:
    """Say why labelled tensors are no pictures of ``count`` samples; None where they are.

    They should be (B, C, H, W) with one channel or three, float in [0, 1].
    """
    for label, made in pictures:
        quoted = f"'{label}'" if label else "one"
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        if not isinstance(made, Tensor) or made.ndim != 4 or not made.numel():
            return f"{quoted} is {shape}, not (B, C, H, W)"
        if len(made) != count or made.shape[1] not in CHANNELS:
            return f"{quoted} has shape {shape}, not ({count}, 1 or 3, H, W)"
        low, high = made.min().item(), made.max().item()
        if not made.is_floating_point() or not 0 <= low <= high <= 1:
            return f"{quoted} is {made.dtype} from {low:.4g} to {high:.4g}, not float from 0 to 1"
    return None


def _first_that_fits(task: TaskChoice, encoders: Sequence[Choice], facts: DataFacts) -> Choice:
    """Return the first encoder that the task runs with, built as the task needs it."""
    reasons = []
    for encoder in encoders:
        try:
            with blaming(task.entry.name, "choosing its encoder"):
                options = {**encoder.options, **task.task.encoder_options(**task.options)}
                where = f"{task.entry.name} with encoder '{encoder.entry.name}'"
                needed = Choice(encoder.entry, resolve_options(encoder.entry.options, options, where))
                reason = task.task.skip_reason(encoder_facts(needed, facts), facts)
        except ClvrBenchError as error:
            reason = str(error).rstrip(".")
        if reason is None:
            return needed
        reasons.append(reason)
    raise ClvrBenchError(f"{task.entry.name}: {'; '.join(reasons)}. Name one that it runs with: --encoder NAME")


def _batch(task: PretextTask, samples: Samples) -> Batch:
    """Make the batch of a first step; what a task with partial labels gets as labelled are the same samples."""
    views = samples.views
    batch = Batch(
        views=[views.clone() for _ in range(2 if task.views == "multi" else task.views)],
        index=samples.index,
        labels=samples.data.labels_for(task.labels, 1.0, samples.seed),
        random=samples.random(),
        progress=Progress(step=0, total_steps=1, epoch=0, epochs=1),
        phase=task.phases[0].name,
    )
    return replace(batch, labelled=batch) if task.labels == "partial" else batch


def _cells(panels: Sequence[Labelled], count: int) -> tuple[tuple[Panel, ...], ...]:
    """Take the panels of all samples apart into those of each."""
    return tuple(
        tuple(tuple(Picture(label, made[place].float()) for label, made in panel) for panel in panels)
        for place in range(count)
    )


def _detail(setting: str, options: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, [setting, *(f"{name}={value}" for name, value in options.items())]))

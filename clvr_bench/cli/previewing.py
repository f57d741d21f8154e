"""``clvr-bench preview``: draws what augmentations and pretext tasks do to pictures of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rich.console import Console

from clvr_bench.assembly import blaming
from clvr_bench.cli.choosing import Chooser
from clvr_bench.cli.loading import load_with_warnings
from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.cli.tables import write_output
from clvr_bench.combinations import Override, TaskChoice
from clvr_bench.contact_sheets import lay_out
from clvr_bench.contracts.dataset import Dataset
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.errors import ClvrBenchError
from clvr_bench.pages import FileType, drawn
from clvr_bench.previews import Row, Sheet, augmentation_row, head_row, task_row, transforms_views, views_as_they_are
from clvr_bench.registry import Entry, Kind
from clvr_bench.samples import Samples, choose_samples

SUFFIXES = (".png", ".svg", ".pdf")
MOST_IMAGES = 8  # side by side in one file
LARGEST_SMALL = 64  # px, of views that the encoders for small pictures are made for
SMALL, LARGE = ("resnet18_small_w16", "vit_micro_patch4_32"), ("resnet18_small_w16", "vit_tiny_patch16_224")
"""Encoders: a pretext task is built on the first of them that it runs with. For small views, and for large ones."""

Maker = Callable[[Samples], Row]


@dataclass(frozen=True)
class PreviewRequest:
    """The arguments of ``preview``, as they were given."""

    kind: str
    names: list[str]
    dataset: str
    data_root: Path | None
    images: str | None
    size: int | None
    seed: int
    encoder: str | None
    overrides: list[str]
    output: Path | None
    plugins: PluginFlags

    @property
    def of_augmentations(self) -> bool:
        """Whether augmentations are drawn, not pretext tasks."""
        return self.kind == "augmentations"


def preview_request(request: PreviewRequest) -> None:
    """Draw what was asked for into a file.

    Raises:
        ClvrBenchError: A name, an option or the file is not as it should be; a plugin that was named failed; or there
            is nothing to draw.
    """
    output, numbers = _output(request), parse_numbers(request.images)
    if request.encoder and request.of_augmentations:
        raise ClvrBenchError(f"--encoder {request.encoder}: augmentations need none. Leave it out.")
    errors, overrides = Console(stderr=True), [Override.parse(text) for text in request.overrides]
    chooser = Chooser("preview", load_with_warnings(request.plugins, errors).registry, overrides)
    dataset = chooser.choice(chooser.entry(Kind.DATASET, request.dataset))
    with blaming(f"dataset {dataset}", "its constructor"):
        built: Dataset = dataset.entry.factory(request.data_root, **dataset.options)
    makers = _makers(request, chooser, request.size or built.image_size)
    chooser.require_all_met()
    samples = choose_samples(dataset.entry.name, built, numbers=numbers, image_size=request.size, seed=request.seed)
    rows = _rows(makers, samples, {*request.names, *(override.name for override in overrides)}, errors)
    sheet = Sheet(head_row(samples, whole=request.of_augmentations), tuple(rows), samples.image_size)
    write_output(output, drawn(lay_out(sheet), cast(FileType, output.suffix[1:].lower())))
    Console().print(f"Written: {output}", markup=False, highlight=False, soft_wrap=True)


def _output(request: PreviewRequest) -> Path:
    output = request.output or Path(f"preview-{request.kind}.png")
    if output.suffix.lower() not in SUFFIXES:
        raise ClvrBenchError(f"--output {output}: its name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    if output.is_dir():
        raise ClvrBenchError(f"--output {output}: it is a folder. Name a file in it.")
    return output


def parse_numbers(text: str | None) -> list[int] | None:
    """Read the numbers of ``--images``; None where there are none.

    Raises:
        ClvrBenchError: They are no numbers, or too many.
    """
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ClvrBenchError(f"--images {text}: expected whole numbers, such as 3,17.") from None
    if len(numbers) > MOST_IMAGES:
        raise ClvrBenchError(f"--images {text}: {len(numbers)} pictures are too many; name at most {MOST_IMAGES}.")
    return numbers


def _makers(request: PreviewRequest, chooser: Chooser, image_size: int) -> dict[str, Maker]:
    """Return what makes each row, by the name that was asked for; of all that can be drawn where none was."""
    kind = Kind.AUGMENTATION if request.of_augmentations else Kind.PRETEXT_TASK
    names = request.names or [entry.name for entry in chooser.registry.entries(kind)]
    if request.of_augmentations:
        return {name: _augmentation_maker(name, chooser) for name in names}
    usual = SMALL if image_size <= LARGEST_SMALL else LARGE
    encoders = [chooser.entry(Kind.ENCODER, name) for name in ([request.encoder] if request.encoder else usual)]
    makers = {name: _task_maker(name, encoders, chooser) for name in names}
    if request.names and None in makers.values():
        raise ClvrBenchError(views_as_they_are(next(name for name, maker in makers.items() if maker is None)))
    return {name: maker for name, maker in makers.items() if maker}


def _augmentation_maker(name: str, chooser: Chooser) -> Maker:
    links = [chooser.entry(Kind.AUGMENTATION, link) for link in name.split("+")]
    return lambda samples: augmentation_row([chooser.choice(link) for link in links], samples)


def _task_maker(name: str, encoders: Sequence[Entry], chooser: Chooser) -> Maker | None:
    """Return what makes a pretext task's row; None where it leaves views as they are."""
    entry = chooser.entry(Kind.PRETEXT_TASK, name)
    contract: type[PretextTask] = entry.factory  # type: ignore[assignment]  # checked when it was registered
    if not transforms_views(contract):
        return None

    def make(samples: Samples) -> Row:
        task, tried = chooser.choice(entry, contract.check_options), [chooser.choice(encoder) for encoder in encoders]
        return task_row(TaskChoice(task.entry, task.options), tried, samples, chooser.given(entry))

    return make


def _rows(makers: Mapping[str, Maker], samples: Samples, named: Set[str], errors: Console) -> list[Row]:
    """Make all rows; one that fails is left out with a warning, unless it was named on the command line."""
    rows: list[Row] = []
    warnings: list[str] = []
    for name, make in makers.items():
        try:
            rows.append(make(samples))
        except ClvrBenchError as error:
            if name in named:
                raise
            warnings.append(f"{name} is left out: {error}")
    if not rows:
        raise ClvrBenchError(f"preview: there is nothing to draw. {' '.join(warnings)}".strip())
    for warning in warnings:
        errors.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    return rows

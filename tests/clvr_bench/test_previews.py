from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Augmentation, Batch, ClvrBenchError, DataFacts, Images, PretextTask, SampleRandom, StepOutput
from clvr_bench.combinations import Choice, TaskChoice
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.previews import (
    DRAWS,
    Panel,
    Row,
    augmentation_row,
    head_row,
    picture_problem,
    preview_problem,
    task_row,
    transforms_views,
)
from clvr_bench.registry import Entry, Kind
from clvr_bench.samples import Samples, choose_samples
from clvr_plugins.datasets.shapes import Shapes

SIDE = 16
Make = Callable[..., Row]


def samples_of(numbers: Sequence[int] = (3, 17), size: int = SIDE, seed: int = 0, train_size: int = 20) -> Samples:
    shapes = Shapes(None, train_size=train_size, test_size=10, image_size=SIDE)
    return choose_samples("shapes", shapes, numbers=numbers, image_size=size, seed=seed)


def registered(kind: Kind, factory: Any) -> Entry:
    return Entry(kind, "subject", factory, summary="", source="none", version="1", plugin="test")


def chosen(entry: Entry, **options: Any) -> Choice:
    return Choice(entry, resolve_options(entry.options, options, "test"))


@pytest.fixture
def augmented(plugins: Plugins) -> Make:
    def make(*links: str | type[Augmentation], samples: Samples | None = None, **options: Any) -> Row:
        entries = [
            plugins.registry.get(Kind.AUGMENTATION, link)
            if isinstance(link, str)
            else registered(Kind.AUGMENTATION, link)
            for link in links
        ]
        chain = [chosen(entry, **(options if place == 0 else {})) for place, entry in enumerate(entries)]
        return augmentation_row(chain, samples or samples_of())

    return make


@pytest.fixture
def transformed(plugins: Plugins) -> Make:
    def make(
        task: str | type[PretextTask],
        encoders: Sequence[str] = ("tiny",),
        samples: Samples | None = None,
        **options: Any,
    ) -> Row:
        if isinstance(task, str):
            entry = plugins.registry.get(Kind.PRETEXT_TASK, task)
        else:
            entry = registered(Kind.PRETEXT_TASK, task)
        check: dict[str, Any] = dict(entry.factory.check_options)  # type: ignore[attr-defined]  # a pretext task
        choice = chosen(entry, **{**check, **options})
        tried = [chosen(plugins.registry.get(Kind.ENCODER, name)) for name in encoders]
        return task_row(TaskChoice(entry, choice.options), tried, samples or samples_of(), options)

    return make


def labels_of(cell: Sequence[Panel]) -> list[list[str]]:
    return [[picture.label for picture in panel] for panel in cell]


def pictures_of(row: Row) -> list[Tensor]:
    return [picture.pixels for cell in row.cells for panel in cell for picture in panel]


class Views(Augmentation):
    """Makes what ``made`` says."""

    made: Any = None

    def __init__(self, data: DataFacts) -> None:
        pass

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        made: list[Tensor] = self.made(images, views)
        return made


class Transforms(PretextTask):
    """Shows what ``shown`` says of a batch."""

    views = 1

    def __init__(self, encoder: Any, data: DataFacts) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> StepOutput:
        raise AssertionError("a preview takes no step")

    def preview(self, batch: Batch) -> Any:
        return {"view": batch.views[0]}


# Augmentations


def test_draws_of_views_that_are_alike_are_side_by_side_as_the_augmentation_makes_them(
    plugins: Plugins, augmented: Make
) -> None:
    samples = samples_of([3, 17], seed=5)
    row = augmented("simclr", samples=samples)
    augmentation = plugins.registry.get(Kind.AUGMENTATION, "simclr").factory(samples.facts("none"))
    random = SampleRandom.keyed(5, 0, torch.tensor([3, 17])).scoped("augmentation")
    views = augmentation(samples.images, DRAWS, random)
    assert len(row.cells) == 2
    for place, cell in enumerate(row.cells):
        assert labels_of(cell) == [[""] * DRAWS]
        for picture, view in zip(cell[0], views, strict=True):
            assert torch.equal(picture.pixels, view[place])
    assert (row.title, row.detail) == ("simclr", "small")


def test_pairs_are_labelled_and_each_has_draws_of_its_own(plugins: Plugins, augmented: Make) -> None:
    samples = samples_of()
    row = augmented("byol", samples=samples)
    assert labels_of(row.cells[0]) == [["first view", "second view"]] * 2
    augmentation = plugins.registry.get(Kind.AUGMENTATION, "byol").factory(samples.facts("none"))
    for draw in range(2):
        views = augmentation(samples.images, 2, SampleRandom.keyed(0, draw, samples.index).scoped("augmentation"))
        for place, cell in enumerate(row.cells):
            assert all(torch.equal(p.pixels, v[place]) for p, v in zip(cell[draw], views, strict=True))


def test_views_of_several_roles_are_labelled_with_role_and_size_and_keep_it(augmented: Make) -> None:
    row = augmented("global_local")
    for cell in row.cells:
        assert labels_of(cell) == [["global, 16 px"], ["local, 8 px", "local, 8 px"]]
        assert [tuple(p.pixels.shape) for panel in cell for p in panel] == [(3, 16, 16), (3, 8, 8), (3, 8, 8)]


def test_a_chain_is_arranged_as_its_first_link_and_says_whose_options_were_changed(augmented: Make) -> None:
    row = augmented("byol", "none", area=[0.5, 1.0])
    assert (row.title, row.detail) == ("byol + none", "small, byol.area=(0.5, 1.0)")
    assert labels_of(row.cells[0]) == [["first view", "second view"]] * 2


def test_changed_options_are_shown_beside_the_setting(augmented: Make) -> None:
    assert augmented("simclr", color_strength=0.7).detail == "small, color_strength=0.7"


def test_views_have_the_size_asked_for_and_its_setting(augmented: Make) -> None:
    row = augmented("simclr", samples=samples_of(size=96))
    assert row.detail == "large"
    assert {tuple(picture.shape) for picture in pictures_of(row)} == {(3, 96, 96)}


def test_another_seed_draws_other_views_and_the_same_one_the_same(augmented: Make) -> None:
    first, again, other = (pictures_of(augmented("crop_flip", samples=samples_of(seed=seed))) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda images, views: [torch.rand(2, 3, 4, 4)], "expected 4 views a picture, got 1."),
        (
            lambda images, views: [torch.rand(1, 3, 4, 4)] * views,
            r"one has shape \(1, 3, 4, 4\), not \(2, 1 or 3, H, W\)",
        ),
        (
            lambda images, views: [2 * torch.ones(2, 3, 4, 4)] * views,
            "float32 from 2 to 2, not float from 0 to 1.*check",
        ),
        (lambda images, views: None, "making views raised TypeError"),
    ],
)
def test_an_augmentation_whose_views_are_none_is_named(augmented: Make, made: Any, message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"augmentation subject.*{message}"):
        augmented(type("Wrong", (Views,), {"made": staticmethod(made)}))


def test_an_augmentation_without_roles_that_should_have_some_is_named(augmented: Make) -> None:
    with pytest.raises(ClvrBenchError, match=r"augmentation subject: its roles ask for no views"):
        augmented(type("NoRoles", (Views,), {"arrangement": "roles", "made": staticmethod(lambda images, views: [])}))


def test_an_augmentation_that_cannot_be_built_is_blamed(augmented: Make) -> None:
    class Broken(Views):
        def __init__(self, data: DataFacts) -> None:
            raise KeyError("sigma")

    with pytest.raises(ClvrBenchError, match="augmentation subject: its constructor raised KeyError: 'sigma'"):
        augmented(Broken)


# The head


def test_the_head_shows_stored_pictures_whole_or_as_views() -> None:
    samples = samples_of(size=8)
    stored = samples.images.pixels.float() / 255
    whole, views = head_row(samples, whole=True), head_row(samples, whole=False)
    assert all(torch.equal(*pair) for pair in zip(pictures_of(whole), stored, strict=True))
    assert all(torch.equal(*pair) for pair in zip(pictures_of(views), samples.views, strict=True))
    assert [labels_of(cell) for cell in whole.cells] == [[["tree, image 3"]], [["key, image 17"]]]
    assert (whole.title, whole.detail) == ("shapes", "views of 8 px, seed 0")


# Pretext tasks


def test_a_task_is_shown_by_its_own_preview_of_unaugmented_views(transformed: Make) -> None:
    samples = samples_of()
    row = transformed("rotation", samples=samples)
    for cell, view in zip(row.cells, samples.views, strict=True):
        assert labels_of(cell) == [["0°", "90°", "180°", "270°"]]
        for quarter, picture in enumerate(cell[0]):
            assert torch.equal(picture.pixels, view.rot90(quarter, dims=(1, 2)))


def test_a_task_is_built_on_the_first_encoder_that_it_runs_with(transformed: Make) -> None:
    (cell, _) = transformed("mae", ["tiny", "vit_micro_patch4_32"]).cells
    assert labels_of(cell) == [["4 of 16 seen"]]
    with pytest.raises(ClvrBenchError, match=r"mae: it hides patches, tiny has no patch tokens. .*--encoder"):
        transformed("mae")


def test_the_detail_names_the_options_that_were_given(transformed: Make) -> None:
    row = transformed("mae", ["vit_micro_patch4_32"], mask_ratio=0.5)
    assert row.detail == "mask_ratio=0.5"
    assert labels_of(row.cells[0]) == [["8 of 16 seen"]]


def test_a_handful_of_pictures_is_enough_for_a_task_that_remembers_many(transformed: Make) -> None:
    class Two(Shapes):
        @property
        def train(self) -> Any:
            return super().train.subset(torch.tensor([0, 1]))

    pictures = Two(None, train_size=20, image_size=SIDE)
    samples = choose_samples("two", pictures, numbers=None, image_size=None, seed=0)
    assert len(transformed("cmc", samples=samples).cells) == 2


def test_which_tasks_transform_their_views(plugins: Plugins) -> None:
    found = {e.name for e in plugins.registry.entries(Kind.PRETEXT_TASK) if transforms_views(e.factory)}  # type: ignore[arg-type]  # a pretext task
    assert {"cmc", "cpc_v1", "deepcluster", "mae", "rotation"} <= found
    assert not {"simclr", "supervised", "raw_pixels", "bigbigan", "semi_supervised"} & found


def test_a_task_that_turns_out_to_leave_views_as_they_are_says_where_to_look(transformed: Make) -> None:
    with pytest.raises(
        ClvrBenchError, match=r"'deepcluster': its encoder sees the views as they are.*preview augmentat"
    ):
        transformed("deepcluster", sobel=False)


def test_a_preview_disturbs_no_generator_and_knows_no_gradient(transformed: Make) -> None:
    class Learns(Transforms):
        def __init__(self, encoder: Any, data: DataFacts) -> None:
            super().__init__(encoder, data)
            self.scale = nn.Parameter(torch.rand(()))

        def preview(self, batch: Batch) -> dict[str, Tensor]:
            return {"scaled": batch.views[0] * self.scale}

    before = torch.get_rng_state()
    row = transformed(Learns)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(picture.requires_grad for picture in pictures_of(row))


def test_the_batch_is_what_the_task_declares(transformed: Make) -> None:
    batches = {}

    def task(name: str, **declared: Any) -> type[PretextTask]:
        def preview(self: Any, batch: Batch) -> dict[str, Tensor]:
            batches[name] = batch
            return {"view": torch.zeros(2, 1, 4, 4)}

        return type(name, (Transforms,), {"preview": preview, **declared})

    samples = samples_of([3, 17], seed=4)
    for name, declared in {
        "none": {"views": 0}, "pair": {"views": 2, "labels": "fine"}, "multi": {"views": "multi", "labels": "coarse"},
        "few": {"labels": "partial"},
    }.items():  # fmt: skip
        transformed(task(name, **declared), samples=samples)
    assert {name: len(batch.views) for name, batch in batches.items()} == {"none": 0, "pair": 2, "multi": 2, "few": 1}
    assert [batches[name].labels.tolist() for name in ("none", "pair", "multi")] == [[-1, -1], [3, 7], [0, 2]]
    labelled = batches["few"].labelled
    assert labelled is not None
    assert labelled.labels.tolist() == [3, 7]
    assert batches["pair"].index.tolist() == [3, 17]
    expected = SampleRandom.keyed(4, 0, torch.tensor([3, 17]))("mask").uniform(2)
    assert torch.equal(batches["pair"].random("mask").uniform(2), expected)
    assert all(torch.equal(view, samples.views) for view in batches["multi"].views)


def test_a_preview_that_raises_is_blamed(transformed: Make) -> None:
    class Raises(Transforms):
        def preview(self, batch: Batch) -> Any:
            raise RuntimeError("no such patch")

    with pytest.raises(
        ClvrBenchError, match=r"subject: preview raised RuntimeError: no such patch \(test_previews.py:"
    ):
        transformed(Raises)


def test_a_preview_of_no_pictures_names_the_check(transformed: Make) -> None:
    class Wrong(Transforms):
        def preview(self, batch: Batch) -> Any:
            return {"view": batch.views[0] - 1}

    with pytest.raises(
        ClvrBenchError, match=r"subject: preview must show pictures, but 'view' is.*clvr-bench check subject"
    ):
        transformed(Wrong)


# What is a picture


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (torch.rand(2, 3, 5, 4), None),
        (torch.rand(2, 1, 5, 4, dtype=torch.float64), None),
        (torch.rand(3, 5, 4), "'x' is (3, 5, 4), not (B, C, H, W)"),
        (torch.rand(2, 3, 0, 4), "'x' is (2, 3, 0, 4), not (B, C, H, W)"),
        (torch.rand(2, 2, 5, 4), "'x' has shape (2, 2, 5, 4), not (2, 1 or 3, H, W)"),
        (torch.rand(3, 3, 5, 4), "'x' has shape (3, 3, 5, 4), not (2, 1 or 3, H, W)"),
        (torch.full((2, 3, 5, 4), 1.5), "'x' is torch.float32 from 1.5 to 1.5, not float from 0 to 1"),
        (torch.full((2, 3, 5, 4), float("nan")), "'x' is torch.float32 from nan to nan, not float from 0 to 1"),
        (torch.ones(2, 3, 5, 4, dtype=torch.uint8), "'x' is torch.uint8 from 1 to 1, not float from 0 to 1"),
        ([1, 2], "'x' is list, not (B, C, H, W)"),
    ],
)
def test_pictures_of_two_samples_are_told_from_what_is_none(made: Any, problem: str | None) -> None:
    assert picture_problem([("x", made)], 2) == problem
    assert preview_problem({"x": made}, 2) == problem


def test_a_preview_is_pictures_by_label_or_nothing() -> None:
    assert preview_problem({}, 2) is None
    assert preview_problem(None, 2) == "it returned NoneType, not pictures by label"

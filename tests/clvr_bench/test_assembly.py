from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Augmentation, ClvrBenchError, DataFacts, Encoder, Images, Role, SampleRandom
from clvr_bench.assembly import (
    Chain,
    blaming,
    build_augmentation,
    build_encoder,
    build_task,
    encoder_facts,
    skip_reason,
    view_count,
)
from clvr_bench.combinations import Choice, Combination, Planner
from clvr_bench.data import Data, prepare
from clvr_bench.errors import RunFailed
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Entry, Kind
from clvr_bench.suites import parse_suite

CPU = torch.device("cpu")
FACTS = DataFacts("image", train_size=10, image_size=16)


class Count(Augmentation):
    """Every view is its own number, counted from 1."""

    setting = "small"

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        return [torch.full((len(images), 3, 4, 4), view + 1.0) for view in range(views)]


class Noise(Augmentation):
    """Adds one draw a sample to each view."""

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        return [images.pixels + random("noise").uniform(1, 1, 1) for _ in range(views)]


class Add(Augmentation):
    """Adds a number to each view, and remembers how many views it was asked for."""

    def __init__(self, amount: float, setting: str = "") -> None:
        self.amount, self.setting = amount, setting
        self.asked: list[int] = []

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        self.asked.append(views)
        return [images.pixels + self.amount] * views


class Unpooled(Encoder):
    def encode(self, images: Tensor) -> Tensor:
        return images[:, :2]


class Choosy(Encoder):
    """Takes pictures of at least 32 px."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 32)

    def encode(self, images: Tensor) -> Tensor:
        return self.convolution(images).mean(dim=(2, 3))


def registered(factory: Callable[..., object], name: str = "inline") -> Choice:
    return Choice(Entry(Kind.ENCODER, name, factory, "An inline encoder.", "none", "1", "test"), {})


def pictures(count: int = 3) -> Images:
    return Images.whole(torch.zeros(count, 3, 4, 4, dtype=torch.uint8))


def samples(count: int = 3) -> SampleRandom:
    return SampleRandom.keyed(0, 0, torch.arange(count))


@pytest.fixture
def combine(plugins: Plugins) -> Callable[..., Combination]:
    def combination(task: str, augmentation: object = "default", *, encoder: str = "tiny", accumulate: int = 1) -> Any:
        content = {
            "name": "test",
            "encoders": [encoder],
            "augmentations": [augmentation],
            "datasets": [{"name": "shapes", "train_size": 40, "test_size": 20, "image_size": 16}],
            "budget": {"epochs": 1, "batch_size": 4, "accumulate": accumulate},
            "pretext_tasks": [task],
        }
        (planned,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
        return planned

    return combination


@pytest.fixture(scope="module")
def data(plugins: Plugins) -> Data:
    dataset = plugins.registry.get(Kind.DATASET, "shapes").factory(None, train_size=40, test_size=20, image_size=16)
    return prepare("shapes", dataset, CPU)


@pytest.fixture
def why_skipped(data: Data) -> Callable[..., str | None]:
    def reason(combination: Combination, given: Data = data) -> str | None:
        encoder = combination.encoder
        facts = encoder_facts(encoder, given.facts(combination.task.task.labels)) if encoder else None
        return skip_reason(combination, given, facts)

    return reason


def test_the_first_link_makes_the_views_and_the_others_change_each() -> None:
    second, third = Add(10), Add(100)
    made = Chain([Count(), second, third])(pictures(), 2, samples())
    assert [view.unique().tolist() for view in made] == [[111], [112]]
    assert second.asked == third.asked == [1, 1]


def test_links_draw_apart_from_each_other_and_for_each_view() -> None:
    images, random = pictures(2000), samples(2000)
    once, twice = (Chain([Count(), *[Noise()] * links])(images, 2, random) for links in (1, 2))
    second = [after - before for before, after in zip(once, twice, strict=True)]
    noise = [view[:, 0, 0, 0] for view in [*once, *second]]  # both views' of the first link, then of the second
    apart = torch.corrcoef(torch.stack(noise)) - torch.eye(4)
    assert apart.abs().max() < 5 / 2000**0.5


def test_a_chain_is_repeatable() -> None:
    first, again = (Chain([Count(), Noise()])(pictures(), 2, samples()) for _ in range(2))
    assert torch.equal(torch.stack(first), torch.stack(again))


def test_a_chain_is_arranged_as_its_first_link() -> None:
    class Roles(Count):
        arrangement = "roles"
        roles = (Role("global", 1, 4),)

    chain = Chain([Roles(), Add(1)])
    assert (chain.arrangement, chain.roles) == ("roles", Roles.roles)
    assert Chain([Add(1), Roles()]).arrangement == "alike"


def test_a_chains_setting_is_that_of_its_links_without_repeats() -> None:
    assert Chain([Count(), Add(1), Add(1, setting="large"), Count()]).setting == "small+large"


def test_one_augmentation_needs_no_chain_and_none_is_none(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.AUGMENTATION, "crop_flip")
    choice = Choice(entry, resolve_options(entry.options, {"flip": 0.0}, "test"))
    single, several = build_augmentation((choice,), FACTS), build_augmentation((choice, choice), FACTS)
    assert isinstance(single, entry.factory)  # type: ignore[arg-type]  # it is registered as a class
    assert single.flip == 0
    assert isinstance(several, Chain)
    assert build_augmentation((), FACTS) is None


@pytest.mark.parametrize(
    ("task", "augmentation", "count"),
    [
        ("simclr", "simclr", 2),
        ("rotation", "crop_flip", 1),
        ("simclr", "fixed_pair", 2),
        ("multi_view", "global_local", 3),
        ("multi_view", "crop_flip", 2),
        ("multi_view", "fixed_pair", 2),
        ("random_init", "crop_flip", 0),
    ],
)
def test_as_many_views_as_the_task_takes(
    combine: Callable[..., Combination], task: str, augmentation: str, count: int
) -> None:
    combination = combine(task, augmentation)
    assert view_count(combination, build_augmentation(combination.augmentation, FACTS)) == count


@pytest.mark.parametrize(
    ("task", "augmentation", "reason"),
    [
        ("simclr", "simclr", None),
        ("simclr", "fixed_pair", None),
        ("multi_view", "fixed_pair", None),
        ("multi_view", "global_local", None),
        ("raw_pixels", "global_local", None),
        ("rotation", "fixed_pair", "rotation takes 1 views, fixed_pair makes a fixed pair"),
        ("rotation", ["fixed_pair", "none"], "rotation takes 1 views, fixed_pair+none makes a fixed pair"),
        ("simclr", "global_local", "simclr takes 2 alike views, global_local makes views of several roles"),
    ],
)
def test_views_that_do_not_fit_the_task_are_skipped(
    combine: Callable[..., Combination],
    why_skipped: Callable[..., str | None],
    task: str,
    augmentation: object,
    reason: str | None,
) -> None:
    assert why_skipped(combine(task, augmentation)) == reason


def test_views_of_a_size_that_the_encoder_cannot_take_are_skipped(
    combine: Callable[..., Combination], why_skipped: Callable[..., str | None]
) -> None:
    combination = combine("multi_view", "global_local", encoder="vit_tiny_patch16_224")
    assert why_skipped(combination) == "vit_tiny_patch16_224 cannot take the 8 px views of global_local"


def test_coarse_labels_need_coarse_classes(
    combine: Callable[..., Combination], why_skipped: Callable[..., str | None], data: Data
) -> None:
    class Plain:
        """The data set without its coarse classes."""

        coarse, coarse_names = (), ()

        def __getattr__(self, name: str) -> object:
            return getattr(data.dataset, name)

    plain: Any = Plain()
    combination = combine("coarse_labelled")
    assert why_skipped(combination) is None
    expected = f"coarse_labelled needs coarse classes, which {data.title} has not"
    assert why_skipped(combination, replace(data, dataset=plain)) == expected


@pytest.mark.parametrize("task", ["rotation", "random_init"])
def test_steps_are_accumulated_where_that_is_exact_or_nothing_is_trained(
    combine: Callable[..., Combination], why_skipped: Callable[..., str | None], task: str
) -> None:
    assert why_skipped(combine(task, accumulate=2)) is None


def test_a_loss_over_pairs_cannot_be_accumulated(
    combine: Callable[..., Combination], why_skipped: Callable[..., str | None]
) -> None:
    reason = "simclr's loss is not a mean over samples, so a step cannot be accumulated from parts"
    assert why_skipped(combine("simclr", accumulate=2)) == reason


def test_a_task_may_refuse_an_encoder(
    combine: Callable[..., Combination], why_skipped: Callable[..., str | None]
) -> None:
    assert why_skipped(combine("picky")) == "tiny has no patch tokens"
    assert why_skipped(combine("picky", encoder="vit_tiny_patch16_224")) is None


def test_an_encoder_is_measured_and_ready_to_train(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.ENCODER, "tiny")
    encoder = build_encoder(Choice(entry, {"width": 5, "in_channels": 1}), FACTS)
    assert (encoder.feature_dim, encoder.passes) == (5, 0)
    assert all(part.training for part in encoder.modules())
    assert not encoder.network[1].running_mean.any()  # measuring left BatchNorm alone


def test_what_is_no_encoder_is_refused() -> None:
    message = r"^encoder 'inline': its factory returned Linear, not an Encoder\.$"
    with pytest.raises(ClvrBenchError, match=message):
        build_encoder(registered(lambda: nn.Linear(2, 2)), FACTS)


def test_features_that_are_not_pooled_are_refused() -> None:
    message = r"^encoder 'inline': expected features \(B, D\), got \(1, 2, 16, 16\)\. Pool the map\.$"
    with pytest.raises(ClvrBenchError, match=message):
        build_encoder(registered(Unpooled), FACTS)


def test_siblings_need_the_registry() -> None:
    with pytest.raises(ClvrBenchError, match=r"Choosy was built outside the registry, so it has no siblings\."):
        Choosy().sibling()


def test_a_siblings_options_are_checked(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.ENCODER, "tiny")
    encoder = build_encoder(Choice(entry, {"width": 5, "in_channels": 3}), FACTS)
    with pytest.raises(ClvrBenchError, match=r"^a sibling of encoder 'tiny': unknown option 'widht'\. Did you mean"):
        encoder.sibling(widht=4)


def test_facts_of_an_encoder_are_learned_without_its_weights(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.ENCODER, "tiny")
    facts = encoder_facts(Choice(entry, {"width": 5, "in_channels": 3}), FACTS)
    assert (facts.name, facts.feature_dim, facts.minimum_size) == ("tiny", 5, 4)
    assert facts.parameters == 5 * 3 * 9 + 2 * 5
    assert (facts.has_feature_maps, facts.has_tokens) == (False, False)


def test_an_encoder_that_cannot_take_the_size_says_so() -> None:
    message = (
        r"^encoder 'inline' cannot take 16 px pictures \(RuntimeError: .+\)\. "
        r"Choose another encoder or another image size\.$"
    )
    with pytest.raises(ClvrBenchError, match=message):
        encoder_facts(registered(Choosy), FACTS)
    assert encoder_facts(registered(Choosy), replace(FACTS, image_size=32)).feature_dim == 6


def test_a_library_network_that_cannot_take_the_size_says_so(plugins: Plugins) -> None:
    entry = plugins.registry.get(Kind.ENCODER, "mixer_s32_224")
    with pytest.raises(ClvrBenchError, match=r"^encoder 'mixer_s32_224' cannot take 16 px pictures \("):
        encoder_facts(Choice(entry, resolve_options(entry.options, {}, "test")), FACTS)


def test_an_encoders_own_message_is_kept() -> None:
    def refuse() -> Encoder:
        raise ClvrBenchError("inline: depth must be positive, got 0.")

    with pytest.raises(ClvrBenchError, match=r"^inline: depth must be positive, got 0\.$"):
        encoder_facts(registered(refuse), FACTS)


def test_the_encoder_of_a_seed_does_not_depend_on_what_was_drawn_before(combine: Callable[..., Combination]) -> None:
    combination = combine("simclr")
    tasks = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        tasks.append(build_task(combination.task, combination.encoder, 7, FACTS).state_dict())
    assert all(torch.equal(tasks[0][name], tasks[1][name]) for name in tasks[0])


def test_a_tasks_heads_do_not_depend_on_its_encoder(combine: Callable[..., Combination]) -> None:
    narrow, wide = (
        build_task(combine("rotation").task, Choice(combine("rotation").encoder.entry, options), 0, FACTS)  # type: ignore[union-attr]
        for options in ({"width": 8, "in_channels": 3}, {"width": 8, "in_channels": 1})
    )
    assert torch.equal(narrow.classifier.weight, wide.classifier.weight)


def test_a_plugins_error_is_blamed_on_the_plugin_and_its_line() -> None:
    message = r"^acme: forward raised ZeroDivisionError: division by zero \(test_assembly\.py:\d+\)$"
    with pytest.raises(RunFailed, match=message) as caught, blaming("acme", "forward"):
        _ = 1 / 0
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_plugins_own_message_is_kept() -> None:
    with pytest.raises(RunFailed, match=r"^acme: tau is wrong\.$"), blaming("acme", "its constructor"):
        raise ClvrBenchError("acme: tau is wrong.")


def test_a_long_message_of_many_lines_becomes_one_line() -> None:
    with pytest.raises(RunFailed) as caught, blaming("acme", "forward"):
        raise ValueError("bad\n" * 1000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import ClvrBenchError, Images, ResidentSplit, Split
from clvr_bench.ops.crops import center_view
from clvr_bench.toolbox import (
    ClassifierRecipe,
    LabelledCrops,
    Training,
    center_outputs,
    train_classifier,
    zero_classifier,
)

RECIPE = ClassifierRecipe(epochs=4, learning_rate=0.05, batch_size=8, reference_batch=8, schedule="constant")


class Watched(ResidentSplit):
    """Remembers what it was told to expect and what it was asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.expected: list[list[int]] = []
        self.asked: list[list[int]] = []

    def expect(self, batches: Iterable[Tensor]) -> None:
        self.expected += [batch.tolist() for batch in batches]

    def images(self, index: Tensor) -> Images:
        self.asked.append(index.tolist())
        return super().images(index)

    def joined(self, other: Split) -> Any:
        raise AssertionError("copied")

    def subset(self, index: Tensor) -> Any:
        raise AssertionError("copied")


def numbered(count: int, first: int = 0, size: int = 6, kind: type[ResidentSplit] = ResidentSplit) -> Any:
    """Pictures of one shade each, the sample's number, labelled by its last digit's evenness."""
    numbers = torch.arange(first, first + count)
    pixels = numbers[:, None, None, None].expand(-1, 3, size, size).to(torch.uint8).contiguous()
    return kind(pixels, numbers % 2)


def noisy(count: int, seed: int = 0) -> ResidentSplit:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 9, 7), dtype=torch.uint8, generator=generator)
    return ResidentSplit(pixels, torch.arange(count) % 3)


def crops_of(*splits: Split, size: int = 4, seed: int = 0, **options: Any) -> LabelledCrops:
    return LabelledCrops(splits, size, seed=seed, purpose=options.pop("purpose", "trial"), **options)


def shades(crops: LabelledCrops, epoch: int, size: int) -> list[list[int]]:
    """The numbers of the samples of every batch."""
    return [(255 * views[:, 0, 0, 0]).round().int().tolist() for views, _ in crops.batches(epoch, size)]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


def test_the_rate_grows_linearly_with_the_batch() -> None:
    recipe = ClassifierRecipe(epochs=1, learning_rate=0.1)
    assert recipe.peak_rate == 0.1
    assert replace(recipe, batch_size=4096).peak_rate == pytest.approx(1.6)
    assert replace(recipe, batch_size=64).peak_rate == pytest.approx(0.025)


@pytest.mark.parametrize("steps", [1, 3, 39])
def test_steps_fall_tenfold_at_60_and_at_80_percent(steps: int) -> None:
    recipe = ClassifierRecipe(epochs=100, learning_rate=30.0, schedule="steps")
    rates = [recipe.rate(step / (100 * steps)) for step in range(100 * steps)]
    assert rates == [30.0] * 60 * steps + [3.0] * 20 * steps + [pytest.approx(0.3)] * 20 * steps


def test_a_cosine_falls_from_the_peak_to_zero() -> None:
    recipe = ClassifierRecipe(epochs=1, learning_rate=0.4, schedule="cosine")
    assert [recipe.rate(part) for part in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.0]
    )


def test_a_constant_rate_stays() -> None:
    assert {replace(RECIPE, schedule="constant").rate(part / 9) for part in range(9)} == {0.05}


def test_a_recipe_changes_where_an_option_is_set() -> None:
    changed = RECIPE.changed("trial", epochs=7, learning_rate=None, weight_decay=0.0, schedule="cosine")
    assert changed == replace(RECIPE, epochs=7, schedule="cosine")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", 0, "at least 1, got 0. The default here is 4."),
        ("batch_size", 1, "at least 2, got 1. The default here is 8."),
        ("learning_rate", 0.0, "a positive number, got 0.0. The default here is 0.05."),
        ("learning_rate", -3.0, "a positive number, got -3.0."),
        ("learning_rate", math.inf, "a positive number, got inf."),
        ("learning_rate", math.nan, "a positive number, got nan."),
        ("weight_decay", -1e-4, "0 or a positive number, got -0.0001. The default here is 0."),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ClvrBenchError) as refusal:
        RECIPE.changed("trial", **{name: value})
    assert str(refusal.value).startswith(f"trial: {name} must be {allowed}")
    assert "\n" not in str(refusal.value)


def test_an_epoch_shows_every_sample_of_every_split_once() -> None:
    batches = shades(crops_of(numbered(13), numbered(5, first=13)), 0, 6)
    assert [len(batch) for batch in batches] == [6, 6, 6]
    assert sorted(flat(batches)) == list(range(18))


def test_labels_are_those_of_the_crops() -> None:
    crops = crops_of(numbered(13), numbered(5, first=13))
    for views, labels in crops.batches(0, 6):
        assert ((255 * views[:, 0, 0, 0]).round().long() % 2).tolist() == labels.tolist()


def test_samples_without_a_label_are_left_out() -> None:
    split = numbered(10)
    split.labels = torch.where(torch.arange(10) < 4, split.labels, -1)
    assert sorted(flat(shades(crops_of(split), 0, 2))) == [0, 1, 2, 3]


def test_samples_can_be_chosen_across_splits() -> None:
    crops = crops_of(numbered(13), numbered(5, first=13), samples=torch.tensor([2, 12, 13, 17]))
    assert sorted(flat(shades(crops, 0, 2))) == [2, 12, 13, 17]
    assert (len(crops), crops.steps(2)) == (4, 2)


def test_nothing_to_train_on_is_refused() -> None:
    split = numbered(4)
    split.labels = torch.full((4,), -1)
    with pytest.raises(ClvrBenchError, match=r"^trial: no sample has a label"):
        crops_of(split)


def test_the_order_is_new_each_epoch_and_the_same_when_asked_again() -> None:
    orders = [flat(shades(crops_of(numbered(40)), epoch, 40)) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != list(range(40))


def test_a_smaller_last_batch_is_left_out_and_a_small_set_is_one_batch() -> None:
    assert [len(batch) for batch in shades(crops_of(numbered(11)), 0, 4)] == [4, 4]
    assert [len(batch) for batch in shades(crops_of(numbered(3)), 0, 4)] == [3]
    assert (crops_of(numbered(11)).steps(4), crops_of(numbered(3)).steps(4)) == (2, 1)


def by_sample(crops: LabelledCrops, epoch: int, size: int) -> dict[int, Tensor]:
    """The crop of each sample, found by its red, which is the sample's number."""
    views = torch.cat([views for views, _ in crops.batches(epoch, size)])
    return {round(255 * view[0, 0, 0].item()): view for view in views}


def gradients(count: int) -> ResidentSplit:
    """Pictures whose red is the sample's number and whose green and blue are a ramp, so that crops differ."""
    red = torch.arange(count)[:, None, None].expand(-1, 16, 16)
    ramp = (16 * torch.arange(16)).expand(count, 16, 16)
    return ResidentSplit(torch.stack([red, ramp, ramp.mT], dim=1).to(torch.uint8), torch.zeros(count).long())


def test_a_samples_crop_does_not_depend_on_the_samples_beside_it() -> None:
    split = gradients(24)
    together, apart = by_sample(crops_of(split), 3, 24), by_sample(crops_of(split), 3, 4)
    alone = by_sample(crops_of(split, samples=torch.tensor([5, 9])), 3, 2)
    assert together.keys() == apart.keys() == set(range(24))
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(alone, {number: together[number] for number in (5, 9)})


def test_where_one_split_ends_and_the_next_begins_changes_no_crop() -> None:
    whole = gradients(24)
    parts = [whole.subset(torch.arange(10)), whole.subset(torch.arange(10, 24))]
    torch.testing.assert_close(by_sample(crops_of(*parts), 3, 6), by_sample(crops_of(whole), 3, 6))


def test_crops_differ_between_epochs_seeds_purposes_and_samples() -> None:
    split = gradients(2)
    variants = [
        by_sample(crops_of(split), 0, 2),
        by_sample(crops_of(split), 1, 2),
        by_sample(crops_of(split, seed=1), 0, 2),
        by_sample(crops_of(split, purpose="other"), 0, 2),
    ]
    seen = [views[number][1:] for views in variants for number in (0, 1)]
    assert all(not torch.allclose(one, other) for place, one in enumerate(seen) for other in seen[:place])


def test_half_of_the_crops_are_mirrored() -> None:
    green = torch.cat([views[:, 1] for views, _ in crops_of(gradients(200)).batches(0, 200)])  # (200, S, S)
    mirrored = (green[:, 0, 0] > green[:, 0, -1]).float().mean().item()
    assert 0.4 < mirrored < 0.6


def test_crops_show_from_8_percent_of_a_picture_to_all_of_it() -> None:
    ((views, _),) = crops_of(gradients(400), size=16).batches(0, 400)
    ramps = 255 * views[:, 1:].flatten(2)  # (400, 2, 256), rising by 16 a pixel across and down
    sides = (ramps.amax(2) - ramps.amin(2)) / 16 + 1  # pixels: from the centre of the first to that of the last
    share = sides.prod(1) / 256
    assert 0.06 < share.min() < 0.1  # sides are whole pixels
    assert share.max() > 0.95
    assert 0.5 < share.mean() < 0.58  # uniform from 0.08 to 1


def test_each_split_is_told_what_it_will_be_asked_for_and_nothing_is_copied() -> None:
    train, val = numbered(13, kind=Watched), numbered(5, first=13, kind=Watched)
    for epoch in range(3):
        shades(crops_of(train, val), epoch, 4)
    for split in (train, val):
        assert split.expected == split.asked
        assert all(split.asked)
    assert sum(map(len, train.asked)) + sum(map(len, val.asked)) == 3 * 16


def logits_of(head: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda views: head(views.flatten(1))


def trained(recipe: ClassifierRecipe = RECIPE, seed: int = 0) -> tuple[nn.Linear, Training]:
    head = zero_classifier(48, 3)
    return head, train_classifier(logits_of(head), head.parameters(), crops_of(noisy(20), seed=seed), recipe)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "steps"])
def test_training_is_gradient_descent_with_momentum_as_written_in_textbooks(nesterov: bool, schedule: Any) -> None:
    recipe = replace(RECIPE, nesterov=nesterov, schedule=schedule, weight_decay=0.01, epochs=10)
    head, training = trained(recipe)
    weight, bias = torch.zeros(3, 48, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    losses = []
    for epoch in range(10):
        rates = {"constant": 0.05, "steps": 0.05 if epoch < 6 else 0.005 if epoch < 8 else 0.0005}
        for step, (views, labels) in enumerate(crops_of(noisy(20)).batches(epoch, 8)):
            rate = rates.get(schedule, 0.025 * (1 + math.cos(math.pi * (2 * epoch + step) / 20)))
            inputs = views.flatten(1).double()
            probabilities = (inputs @ weight.T + bias).softmax(1)
            losses.append(-probabilities[range(8), labels].log().mean().item())
            residual = (probabilities - F.one_hot(labels, 3)) / 8
            gradients = [residual.T @ inputs + 0.01 * weight, residual.sum(0) + 0.01 * bias]
            velocity = [0.9 * old + new for old, new in zip(velocity, gradients, strict=True)]
            moves = [new + 0.9 * v for new, v in zip(gradients, velocity, strict=True)] if nesterov else velocity
            weight, bias = weight - rate * moves[0], bias - rate * moves[1]
    torch.testing.assert_close(head.weight.double(), weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.bias.double(), bias, atol=1e-5, rtol=1e-4)
    assert training.losses == pytest.approx([(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)])


def test_training_twice_gives_the_same_bits() -> None:
    (one, first), (other, second) = trained(), trained()
    assert torch.equal(one.weight, other.weight)
    assert first.losses == second.losses
    assert trained(seed=1)[1].losses != first.losses


def test_dropout_is_keyed_too_and_torchs_generator_is_left_as_it_was() -> None:
    def losses() -> tuple[float, ...]:
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), zero_classifier(48, 3))
        return train_classifier(network, network.parameters(), crops_of(noisy(20)), RECIPE).losses

    torch.manual_seed(1)
    state, first = torch.random.get_rng_state(), losses()
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert losses() == first


def test_what_training_took_is_counted() -> None:
    training = trained()[1]
    assert (training.samples, training.steps, training.passes) == (20, 8, 64)
    assert len(training.losses) == 4
    assert training.losses[0] == pytest.approx(math.log(3), abs=0.1)  # of a classifier that starts at zero
    assert training.seconds > 0


def test_details_can_be_written_as_strict_json() -> None:
    details = json.loads(json.dumps(trained()[1].details, allow_nan=False))
    assert details["recipe"]["peak_rate"] == 0.05
    assert details["recipe"]["schedule"] == "constant"
    assert details["encoder_passes"] == 64
    assert len(details["losses"]) == 4


def test_a_training_of_few_steps_is_noted() -> None:
    assert trained()[1].notes == ("only 8 optimizer steps on 20 samples: so few need more epochs.",)
    assert Training(RECIPE, samples=20, losses=(), steps=200, passes=1600, seconds=1.0).notes == ()


def test_groups_may_have_a_weight_decay_of_their_own() -> None:
    head = zero_classifier(48, 3)
    nn.init.ones_(head.bias)
    groups = [{"params": [head.weight]}, {"params": [head.bias], "weight_decay": 0.0}]
    recipe = replace(RECIPE, weight_decay=1e3, learning_rate=1e-3, epochs=1, batch_size=20)
    train_classifier(logits_of(head), groups, crops_of(noisy(20)), recipe)
    assert head.bias.min() > 0.9


def test_a_loss_that_is_not_finite_ends_the_training_with_advice() -> None:
    head = zero_classifier(48, 3)
    with pytest.raises(
        ClvrBenchError, match=r"^trial: the loss became NaN or infinite in epoch 1 of 4\. Lower learning_rate, which is"
    ):
        train_classifier(lambda views: head(views.flatten(1)) / 0 * 0, head.parameters(), crops_of(noisy(20)), RECIPE)


def test_out_of_memory_is_explained() -> None:
    head = zero_classifier(48, 3)

    def network(views: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    with pytest.raises(
        ClvrBenchError, match=r"^trial: out of memory at batch_size 8\. Choose a smaller one, such as 4;"
    ):
        train_classifier(network, head.parameters(), crops_of(noisy(20)), RECIPE)


def test_other_errors_are_left_as_they_are() -> None:
    head = zero_classifier(48, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_classifier(lambda views: head(views.flatten(1)[:, 1:]), head.parameters(), crops_of(noisy(20)), RECIPE)


def test_a_new_classifier_is_zero_and_draws_nothing() -> None:
    state = torch.random.get_rng_state()
    head = zero_classifier(5, 3)
    assert (head.weight.shape, head.bias.shape) == ((3, 5), (3,))
    assert not any(parameter.any() for parameter in head.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_center_outputs_are_those_of_the_centre_views_in_order() -> None:
    split, head = noisy(12), nn.Linear(48, 3)
    outputs = center_outputs(logits_of(head), split, 4)
    expected = head(center_view(split.images(torch.arange(12)), 4).flatten(1))
    torch.testing.assert_close(outputs, expected.detach())
    assert not outputs.requires_grad


def test_center_outputs_announce_what_they_ask_for() -> None:
    split = numbered(12, kind=Watched)
    center_outputs(lambda views: views.flatten(1), split, 4)
    assert split.expected == split.asked == [list(range(12))]

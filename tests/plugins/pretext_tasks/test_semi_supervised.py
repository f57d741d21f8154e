from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.semi_supervised import SemiSupervised, pseudo_label_loss, pseudo_labels

CLASSES = 5
FACTS = DataFacts("image", train_size=8, image_size=6, num_classes=CLASSES)


class Flat(nn.Module):
    """An encoder stand-in: a picture's pixels are its feature."""

    feature_dim = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.flatten(1)


def batch_of(views: list[Tensor], labels: list[int], labelled: Batch | None = None) -> Batch:
    index = torch.arange(len(labels))
    random, progress = SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1)
    return Batch(views, index, torch.tensor(labels), random, progress, labelled=labelled)


def both_streams(labelled: list[Tensor], labels: list[int], views: list[Tensor]) -> Batch:
    return batch_of(views, [-1] * len(views[0]), batch_of(labelled, labels))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cross_entropy(logits: list[float], target: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[target]


def equation_3(logits: Tensor, labels: list[int]) -> float:
    rows: list[list[float]] = logits.double().tolist()
    return sum(cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)) / len(labels)


def equation_4(weak: Tensor, strong: Tensor, threshold: float) -> float:
    rows: list[tuple[list[float], list[float]]] = list(
        zip(weak.double().tolist(), strong.double().tolist(), strict=True)
    )
    total = 0.0
    for sure, guess in rows:
        probabilities = [math.exp(logit) / sum(map(math.exp, sure)) for logit in sure]
        if max(probabilities) >= threshold:
            total += cross_entropy(guess, probabilities.index(max(probabilities)))
    return total / len(rows)


def unsupervised(weak: Tensor, strong: Tensor, threshold: float) -> Tensor:
    return pseudo_label_loss(strong, *pseudo_labels(weak, threshold))


@pytest.fixture
def task(plugins: Plugins) -> SemiSupervised:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return SemiSupervised(encoder, FACTS, threshold=0.2)  # every guess of five classes counts


def reader(**options: float) -> SemiSupervised:
    """A task that takes the pixels of a picture (B, 5, 1, 1) for its logits."""
    encoder: Any = Flat()
    task = SemiSupervised(encoder, FACTS, **options)
    task.classifier = nn.Identity()  # type: ignore[assignment]  # the features are the logits
    return task


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 0.95, 1.0])
def test_the_unsupervised_loss_is_equation_4(threshold: float) -> None:
    weak, strong = noise(20, CLASSES), noise(20, CLASSES, seed=1)
    expected = equation_4(weak, strong, threshold)
    assert unsupervised(weak, strong, threshold).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_loss_is_equation_3_plus_a_multiple_of_equation_4(weight: float) -> None:
    sure, weak, strong, labels = noise(3, CLASSES), noise(7, CLASSES, seed=1), noise(7, CLASSES, seed=2), [4, 0, 2]
    images = [logits.view(-1, CLASSES, 1, 1) for logits in (sure, weak, strong)]
    task = reader(unlabelled_weight=weight, threshold=0.8)
    output = task(both_streams([images[0], 0 * images[0]], labels, images[1:]))
    first, second = equation_3(sure, labels), equation_4(weak, strong, 0.8)
    assert second > 0
    assert output.loss.item() == pytest.approx(first + weight * second, abs=1e-5)
    assert float(output.logs["supervised_loss"]) == pytest.approx(first, abs=1e-5)
    assert float(output.logs["unsupervised_loss"]) == pytest.approx(second, abs=1e-5)


def test_guesses_that_are_not_sure_enough_cost_nothing_but_count_in_the_mean() -> None:
    weak = torch.tensor([[10.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.0, 0.0]])
    strong = torch.zeros(4, 2)  # each costs log 2
    assert unsupervised(weak, strong, 0.95).item() == pytest.approx(math.log(2) / 4)


def test_a_guess_that_just_reaches_the_threshold_counts() -> None:
    guesses, counts = pseudo_labels(torch.tensor([[0.0, 0.0], [0.0, -1e-3]]), 0.5)
    assert counts.tolist() == [True, True]
    assert guesses[1] == 0


def test_the_target_is_the_class_that_the_weak_view_is_surest_of() -> None:
    guesses, counts = pseudo_labels(torch.tensor([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [2.0, 2.0, 2.1]]), 0.9)
    assert guesses.tolist() == [1, 0, 2]
    assert counts.tolist() == [True, True, False]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(0, 1000), st.floats(0, 0.9))
def test_a_higher_threshold_never_costs_more(pictures: int, seed: int, threshold: float) -> None:
    weak, strong = noise(pictures, CLASSES, seed=seed), noise(pictures, CLASSES, seed=seed + 1)
    costs = [unsupervised(weak, strong, tau).item() for tau in (0.0, threshold, threshold + 0.1, 1.1)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0


def test_no_gradient_reaches_the_guesses() -> None:
    weak, strong = noise(6, CLASSES).requires_grad_(), noise(6, CLASSES, seed=1).requires_grad_()
    unsupervised(weak, strong, 0.0).backward()
    assert weak.grad is None
    assert strong.grad is not None
    assert strong.grad.any()


def test_all_views_but_the_labelled_strong_ones_pass_the_encoder_in_one_batch() -> None:
    task = reader()
    labelled, views = (
        [noise(2, CLASSES, 1, 1), noise(2, CLASSES, 1, 1, seed=1)],
        [
            noise(4, CLASSES, 1, 1, seed=2),
            noise(4, CLASSES, 1, 1, seed=3),
        ],
    )
    task(both_streams(labelled, [0, 1], views))
    seen: Any = task.encoder.seen
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat([labelled[0], *views]))


def test_hidden_labels_are_never_read() -> None:
    images, labelled = [noise(4, CLASSES, 1, 1), noise(4, CLASSES, 1, 1, seed=1)], [noise(2, CLASSES, 1, 1)] * 2
    batch = both_streams(labelled, [0, 1], images)
    other = replace(batch, labels=torch.tensor([3, 1, 4, 1]))
    assert torch.equal(reader()(batch).loss, reader()(other).loss)


def test_logs_say_how_many_guesses_count_and_how_many_labelled_are_right() -> None:
    labelled = torch.eye(CLASSES)[[0, 1, 2, 3]].view(4, CLASSES, 1, 1)
    weak = torch.stack([9 * torch.eye(CLASSES)[0], torch.zeros(CLASSES)]).view(2, CLASSES, 1, 1)
    logs = reader()(both_streams([labelled, labelled], [0, 1, 2, 4], [weak, weak])).logs
    assert float(logs["labelled_top1"]) == 75
    assert float(logs["confident_percent"]) == 50


def test_it_sees_a_part_of_the_labels_and_is_not_ranked() -> None:
    assert (SemiSupervised.labels, SemiSupervised.ranked) == ("partial", False)


def test_options_say_how_many_labels_there_are_and_how_many_labelled_pictures_a_step_has() -> None:
    task = reader(fraction=0.25, unlabelled_ratio=4)
    assert (task.labelled_fraction, task.labelled_ratio) == (0.25, 0.25)
    assert (reader().labelled_fraction, reader().labelled_ratio) == (0.1, 1 / 7)


def test_the_paper_rate_is_that_of_64_labelled_pictures() -> None:
    assert SemiSupervised.recipe.peak_rate(7 * 64) == pytest.approx(0.03)


def test_the_classifier_has_an_output_for_every_class_and_is_not_evaluated(task: SemiSupervised) -> None:
    assert (task.classifier.in_features, task.classifier.out_features) == (8, CLASSES)
    assert task.representation() is task.encoder


def test_the_gradient_reaches_encoder_and_classifier(task: SemiSupervised) -> None:
    labelled = [noise(3, 3, 6, 6).sigmoid()] * 2
    task(both_streams(labelled, [0, 1, 2], [noise(6, 3, 6, 6, seed=s).sigmoid() for s in (1, 2)])).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("fraction", 0.0, r"fraction must be above 0 and at most 1, got 0\.0\. Typical"),
        ("fraction", 1.5, r"fraction must be above 0 and at most 1, got 1\.5\. Typical"),
        ("threshold", -0.1, r"threshold must be from 0 to 1, got -0\.1\. Typical: 0\.95"),
        ("threshold", 1.1, r"threshold must be from 0 to 1, got 1\.1\. Typical: 0\.95"),
        ("unlabelled_ratio", 0.0, r"unlabelled_ratio must be positive, got 0\.0\. Typical: 7"),
        ("unlabelled_weight", -1.0, r"unlabelled_weight must not be negative, got -1\.0\. Typical: 1"),
    ],
)
def test_a_bad_option_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"semi_supervised: {message}"):
        reader(**{option: value})


def test_the_loss_falls_within_a_few_steps(task: SemiSupervised) -> None:
    images = noise(12, 3, 6, 6).sigmoid()
    batch = both_streams([images[:5]] * 2, [0, 1, 2, 3, 4], [images[5:], (images[5:] + 0.05).clamp(max=1)])
    optimizer = torch.optim.SGD(task.parameters(), lr=0.3, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = task(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]

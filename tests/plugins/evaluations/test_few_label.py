from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import labelled_subset
from clvr_plugins.evaluations import few_label, linear
from clvr_plugins.evaluations.few_label import FewLabel, Problem, cross_validate

Clouds = Callable[..., Any]


def known(samples: int = 60, dimensions: int = 12, classes: int = 3, apart: float = 2.0) -> tuple[Tensor, Tensor]:
    """Normal clouds (N, D), one a class, with their labels (N,)."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(samples) % classes
    centers = torch.randn(classes, dimensions, generator=generator) * apart / (2 * dimensions) ** 0.5
    return centers[labels] + torch.randn(samples, dimensions, generator=generator), labels


def reference(features: Tensor, labels: Tensor, penalty: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (penalty * len(features)), tol=1e-7, max_iter=10_000)
    return model.fit(features.double().numpy(), labels.numpy())


def test_grid_and_solver_are_those_of_the_linear_probe() -> None:
    ours = (few_label.PENALTIES, few_label.TOLERANCE, few_label.MAX_ITERATIONS)
    assert ours == (linear.PENALTIES, linear.TOLERANCE, linear.MAX_ITERATIONS)


def test_classes_far_apart_are_learned_from_few_labels_and_noise_is_not(clouds: Clouds) -> None:
    metrics = FewLabel(draws=2)(clouds(apart=30.0)).metrics
    assert metrics["top1_1pct"] > 95
    assert metrics["top1_10pct"] > 99
    assert FewLabel(draws=2)(clouds(apart=0.0)).metrics["top1_10pct"] < 25


def test_more_labels_score_higher_and_all_score_as_linear_does(clouds: Clouds) -> None:
    frozen = clouds(apart=4.0)
    metrics = FewLabel(fractions=(0.03, 0.1, 1.0), draws=1)(frozen).metrics
    assert metrics["top1_3pct"] < metrics["top1_10pct"] < metrics["top1_100pct"]
    assert metrics["top1_100pct"] == pytest.approx(linear.LinearProbe()(frozen).metrics["top1"], abs=3)


def test_metrics_are_means_over_the_draws_with_their_deviation_beside(clouds: Clouds) -> None:
    scores = FewLabel()(clouds())
    assert set(scores.metrics) == {"top1_1pct", "top5_1pct", "top1_10pct", "top5_10pct"}
    for share in ("1pct", "10pct"):
        for metric in ("top1", "top5"):
            values = scores.details[share][metric]  # type: ignore[index]
            assert len(set(values)) > 1
            assert scores.metrics[f"{metric}_{share}"] == fmean(values)
            assert scores.details[share][f"{metric}_std"] == stdev(values)  # type: ignore[index]
    assert scores.predictions is None


def test_top5_is_left_out_for_five_classes(clouds: Clouds) -> None:
    assert set(FewLabel()(clouds(classes=5)).metrics) == {"top1_1pct", "top1_10pct"}


def test_one_draw_has_no_deviation(clouds: Clouds) -> None:
    details = json.loads(json.dumps(FewLabel(draws=1)(clouds()).details, allow_nan=False))
    assert details["10pct"]["top1_std"] is None
    assert len(details["10pct"]["penalty"]) == details["draws"] == 1


def test_draws_are_stratified_parts_of_train_and_val(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    probe = Problem.probe
    monkeypatch.setattr(Problem, "probe", lambda self, samples: seen.append(samples) or probe(self, samples))
    frozen = replace(clouds(), seed=7)
    scores = FewLabel(fractions=(0.1,), draws=3)(frozen)
    labels = torch.cat([frozen.tables[split][1] for split in ("train", "val")])
    assert all(labels[samples].bincount().tolist() == [5] * 10 for samples in seen)  # of 46 a class
    assert scores.details["10pct"]["samples"] == 50  # type: ignore[index]
    expected = [labelled_subset(labels, 0.1, seed=7, draw=draw).tolist() for draw in range(3)]
    assert [samples.tolist() for samples in seen] == expected
    assert max(max(samples) for samples in expected) >= 400  # samples of val are among them


def test_a_draw_is_fitted_as_scikit_learn_would(clouds: Clouds) -> None:
    """The whole path in plain steps: standardize by train, fit on the labelled samples alone, score test."""
    frozen = clouds(apart=3.0)
    scores = FewLabel(fractions=(0.1,), draws=2)(frozen)
    train, val, test = (frozen.tables[split][0] for split in ("train", "val", "test"))
    mean, deviation = train.mean(0), train.std(0, correction=0)
    features = (torch.cat([train, val]) - mean) / deviation
    labels = torch.cat([frozen.tables["train"][1], frozen.tables["val"][1]])
    for draw in range(2):
        chosen = labelled_subset(labels, 0.1, seed=0, draw=draw)
        details: Any = scores.details["10pct"]
        model = reference(features[chosen], labels[chosen], details["penalty"][draw])
        top1 = 100 * np.mean(
            model.predict(((test - mean) / deviation).double().numpy()) == frozen.tables["test"][1].numpy()
        )
        assert details["top1"][draw] == pytest.approx(top1, abs=0.7)  # one of 150 at most


def test_cross_validation_is_that_of_plain_loops_over_folds_and_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_label, "PENALTIES", (1e-2, 1.0, 10.0))
    features, labels = known()
    found, unsolved = cross_validate(features, labels, 3, folds=5)
    positions = {label: (labels == label).nonzero()[:, 0].tolist() for label in range(3)}
    dealt = [sample for label in range(3) for sample in positions[label]]  # class after class
    fold = {sample: place % 5 for place, sample in enumerate(dealt)}
    for penalty, top1 in zip(few_label.PENALTIES, found, strict=True):
        right = 0
        for number in range(5):
            held_out = torch.tensor([fold[sample] == number for sample in range(60)])
            model = reference(features[~held_out], labels[~held_out], penalty)
            right += (model.predict(features[held_out].double().numpy()) == labels[held_out].numpy()).sum()
        assert top1 == pytest.approx(100 * right / 60, abs=1.7), penalty  # one of 60 at most
    assert unsolved == 0
    assert len(set(found)) > 1


def test_of_the_penalties_that_do_best_on_held_out_folds_the_strongest_is_used(clouds: Clouds) -> None:
    details: Any = FewLabel()(clouds(apart=2.5)).details
    for share in ("1pct", "10pct"):
        for penalty, top1 in zip(details[share]["penalty"], details[share]["cross_validated_top1"], strict=True):
            best = max(top1) if top1 else None
            assert penalty == max(
                (p for p, t in zip(few_label.PENALTIES, top1, strict=bool(top1)) if t == best), default=0.1
            )
    assert len(set(details["10pct"]["penalty"])) > 1


def test_val_decides_nothing(clouds: Clouds) -> None:
    """Only the labelled samples matter: with other features for all others, the fits are the same."""
    frozen = clouds()
    plain: Any = FewLabel(fractions=(0.1,), draws=1)(frozen).details["10pct"]
    labels = torch.cat([frozen.tables["train"][1], frozen.tables["val"][1]])
    chosen = labelled_subset(labels, 0.1, seed=0)
    features, val_labels = frozen.tables["val"]
    others = torch.ones(60, dtype=torch.bool).index_fill(0, chosen[chosen >= 400] - 400, False)
    frozen.tables["val"] = (torch.where(others[:, None], 9.0, features), val_labels)
    assert FewLabel(fractions=(0.1,), draws=1)(frozen).details["10pct"] == plain


@pytest.mark.parametrize(("samples", "folds"), [(2, 2), (3, 3), (5, 5), (9, 5)])
def test_there_are_as_many_folds_as_the_rarest_class_has_samples_up_to_five(samples: int, folds: int) -> None:
    features, labels = known(90)
    problem = Problem(features, labels, features, labels, 3)
    chosen = torch.cat([torch.arange(0, 60, 3), torch.arange(1, 60, 3), torch.arange(2, 3 * samples, 3)])
    assert problem.probe(chosen).folds == folds


def test_a_class_with_one_sample_has_a_fixed_penalty_and_a_note(clouds: Clouds) -> None:
    frozen = clouds(apart=30.0)
    scores = FewLabel(fractions=(0.001, 0.1))(frozen)
    details: Any = scores.details["0.1pct"]
    assert (details["samples"], details["folds"], details["penalty"]) == (10, 1, [0.1] * 5)
    assert details["cross_validated_top1"] == [[]] * 5
    assert scores.metrics["top1_0.1pct"] > 90
    assert scores.notes == ("0.1pct: a class with one labelled sample leaves none to hold out: the penalty is 0.1.",)


def test_fractions_that_label_the_same_samples_are_noted(clouds: Clouds) -> None:
    scores = FewLabel(fractions=(0.001, 0.01, 0.1))(clouds())
    assert "0.1pct and 1pct label the same 10 samples." in scores.notes
    assert scores.metrics["top1_0.1pct"] == scores.metrics["top1_1pct"]
    assert not any("10pct and" in note or "and 10pct" in note for note in scores.notes)


def test_fits_that_stop_short_are_noted(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("tolerance" in note for note in FewLabel(fractions=(0.1,))(clouds()).notes)
    monkeypatch.setattr(few_label, "MAX_ITERATIONS", 1)
    (note,) = FewLabel(fractions=(0.1,), draws=2)(clouds()).notes
    fits = 2 * (13 * 5 + 1)  # draws x (penalties x folds + the final fit)
    assert note == f"10pct: {fits} fits did not reach their tolerance in 1 iterations."


def test_the_same_seed_gives_the_same_numbers_and_another_one_other_draws(clouds: Clouds) -> None:
    first, second = FewLabel(draws=2)(clouds()), FewLabel(draws=2)(clouds())
    other = FewLabel(draws=2)(replace(clouds(), seed=1))
    assert first.details == second.details
    assert first.metrics == second.metrics != other.metrics


def test_labels_of_test_change_scores_and_nothing_else(clouds: Clouds) -> None:
    plain, flipped = clouds(), clouds()
    features, labels = flipped.tables["test"]
    flipped.tables["test"] = (features, labels.flip(0))
    one, other = FewLabel(draws=2)(plain), FewLabel(draws=2)(flipped)
    for share in ("1pct", "10pct"):
        first, second = one.details[share], other.details[share]
        assert first["penalty"] == second["penalty"]  # type: ignore[index]
        assert first["cross_validated_top1"] == second["cross_validated_top1"]  # type: ignore[index]
    assert one.metrics != other.metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.0, 0.1)}, "fractions must be above 0 and at most 1, got [0.0, 0.1]. Typical: [0.01, 0.1]."),
        ({"fractions": (0.1, 2.0)}, "fractions must be above 0 and at most 1, got [0.1, 2.0]. Typical: [0.01, 0.1]."),
        ({"fractions": ()}, "fractions must be above 0 and at most 1, got []. Typical: [0.01, 0.1]."),
        ({"fractions": (0.1, 0.1)}, "fractions must differ from each other, got [0.1, 0.1]."),
        ({"draws": 0}, "draws must be at least 1, got 0. The default is 5."),
    ],
)
def test_a_bad_option_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError) as refusal:
        FewLabel(**options)
    assert str(refusal.value) == f"few_label: {message}"

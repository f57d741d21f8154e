import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clvr_bench import ClvrBenchError
from clvr_bench.contracts.evaluation import Frozen, Scores
from clvr_plugins.evaluations import linear
from clvr_plugins.evaluations.linear import LinearProbe, edge_notes

Clouds = Callable[..., Any]


def judge(frozen: Frozen) -> Scores:
    return LinearProbe()(frozen)


def transformed(frozen: Any, change: Callable[[Tensor], Tensor], *splits: str) -> Any:
    """The same representation with its features changed in some splits, or in all."""
    tables = {
        split: (change(features) if not splits or split in splits else features, labels)
        for split, (features, labels) in frozen.tables.items()
    }
    return replace(frozen, tables=tables)


def relabelled(frozen: Any, split: str) -> Any:
    """The same representation with the labels of one split in another order."""
    features, labels = frozen.tables[split]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    return replace(frozen, tables={**frozen.tables, split: (features, labels[order])})


def test_well_separated_classes_score_near_100_percent(clouds: Clouds) -> None:
    scores = judge(clouds(apart=20.0))
    assert scores.metrics["top1"] > 99
    assert scores.metrics["val_top1"] > 99


def test_features_without_information_score_near_chance(clouds: Clouds) -> None:
    assert judge(clouds(apart=0.0)).metrics["top1"] < 25


def test_metrics_follow_from_predictions_and_labels(clouds: Clouds) -> None:
    frozen = clouds(apart=3.0)
    scores, labels = judge(frozen), frozen.tables["test"][1]
    assert scores.predictions is not None
    hits = [
        row.tolist().index(label) if label in row else 99 for row, label in zip(scores.predictions, labels, strict=True)
    ]
    assert scores.metrics["top1"] == pytest.approx(100 * sum(hit < 1 for hit in hits) / len(labels))
    assert scores.metrics["top5"] == pytest.approx(100 * sum(hit < 5 for hit in hits) / len(labels))
    assert 40 < scores.metrics["top1"] < scores.metrics["top5"] < 100


def test_predictions_are_the_five_best_classes_each_once(clouds: Clouds) -> None:
    predictions = judge(clouds()).predictions
    assert predictions is not None
    assert predictions.dtype == torch.int64
    assert predictions.shape == (150, 5)
    assert all(len(set(row)) == 5 for row in predictions.tolist())


@pytest.mark.parametrize(("classes", "has_top5", "ranked"), [(3, False, 3), (5, False, 5), (6, True, 5)])
def test_top5_is_left_out_where_it_would_always_be_100(
    clouds: Clouds, classes: int, has_top5: bool, ranked: int
) -> None:
    scores = judge(clouds(classes=classes))
    assert ("top5" in scores.metrics) == has_top5
    assert scores.predictions is not None
    assert scores.predictions.shape[1] == ranked


def test_labels_of_test_change_its_score_and_nothing_else(clouds: Clouds) -> None:
    plain, permuted = judge(clouds()), judge(relabelled(clouds(), "test"))
    assert plain.details == permuted.details
    assert torch.equal(plain.predictions, permuted.predictions)  # type: ignore[arg-type]
    assert plain.metrics["val_top1"] == permuted.metrics["val_top1"]
    assert plain.metrics["top1"] > permuted.metrics["top1"] + 20


def test_features_of_test_change_neither_the_choice_nor_the_standardization(clouds: Clouds) -> None:
    plain, moved = judge(clouds()), judge(transformed(clouds(), lambda features: 5 * features + 3, "test"))
    assert plain.details == moved.details


def test_test_is_looked_at_only_after_everything_is_fitted_and_only_once(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = clouds()
    fit = linear.fit_logistic

    def spy(*args: Any, **options: Any) -> Any:
        frozen.asked.append(("fit", str(len(args[0]))))
        return fit(*args, **options)

    monkeypatch.setattr(linear, "fit_logistic", spy)
    judge(frozen)
    assert [entry for entry in frozen.asked if entry[0] == "fit"] == [("fit", "400"), ("fit", "460")]
    assert frozen.asked[-2:] == [("features", "test"), ("labels", "test")]
    assert sum(split == "test" for _, split in frozen.asked) == 2


def test_val_chooses_the_penalty(clouds: Clouds) -> None:
    frozen = clouds(apart=2.0)
    details = judge(frozen).details
    val_top1 = details["val_top1"]
    assert isinstance(val_top1, list)
    assert details["penalty"] == max(
        penalty for penalty, top1 in zip(linear.PENALTIES, val_top1, strict=True) if top1 == max(val_top1)
    )
    assert judge(relabelled(frozen, "val")).details["val_top1"] != val_top1


def test_the_final_fit_also_learns_from_val(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 0 is absent from train, so only a fit on val can ever predict it."""
    monkeypatch.setattr(linear, "PENALTIES", (1e-4, 1e-3))  # weak enough for the six samples in val to count
    frozen = clouds(apart=20.0)
    features, labels = frozen.tables["train"]
    frozen.tables["train"] = (features[labels != 0], labels[labels != 0])
    predictions = judge(frozen).predictions
    assert predictions is not None
    assert (predictions[frozen.tables["test"][1] == 0, 0] == 0).all()


def test_affine_changes_of_single_features_change_no_prediction(clouds: Clouds) -> None:
    scale = torch.logspace(-3, 3, 12)
    plain, rescaled = judge(clouds()), judge(transformed(clouds(), lambda features: features * scale + 2 * scale))
    assert plain.details["penalty"] == rescaled.details["penalty"]
    assert torch.equal(plain.predictions[:, 0], rescaled.predictions[:, 0])  # type: ignore[index]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_feature_that_is_constant_in_train_counts_for_nothing(clouds: Clouds, value: float) -> None:
    def with_constant(features: Tensor) -> Tensor:
        return torch.cat([features, torch.full((len(features), 1), value)], dim=1)

    plain = judge(clouds())
    extended = transformed(clouds(), with_constant)
    extended.tables["test"][0][:, -1] = 1e6 * torch.rand(150)  # what train never showed must not reach the score
    scores = judge(extended)
    assert torch.equal(plain.predictions, scores.predictions)  # type: ignore[arg-type]


@pytest.mark.parametrize(("chosen", "end"), [(0, "weakest"), (len(linear.PENALTIES) - 1, "strongest")])
def test_a_choice_at_the_edge_of_the_grid_is_noted(chosen: int, end: str) -> None:
    assert len(edge_notes(chosen)) == 1
    assert end in edge_notes(chosen)[0]


def test_a_choice_within_the_grid_is_not_noted() -> None:
    assert edge_notes(1) == []


def test_the_edge_note_reaches_the_scores(clouds: Clouds) -> None:
    """All penalties are perfect on easy classes, so the tie goes to the strongest: the grid's edge."""
    scores = judge(clouds(apart=60.0))
    assert scores.details["penalty"] == linear.PENALTIES[-1]
    assert any("strongest" in note for note in scores.notes)


def test_a_fit_that_stops_short_is_noted(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("tolerance" in note for note in judge(clouds()).notes)
    monkeypatch.setattr(linear, "MAX_ITERATIONS", 2)
    notes = [note for note in judge(clouds()).notes if "tolerance" in note]
    assert len(notes) == 2
    assert "1e-05" in notes[0]
    assert "final" in notes[1]


def test_an_empty_val_is_refused(clouds: Clouds) -> None:
    frozen = clouds()
    frozen.tables["val"] = tuple(table[:0] for table in frozen.tables["val"])
    with pytest.raises(ClvrBenchError, match="val has no samples"):
        judge(frozen)


def test_details_can_be_written_as_strict_json(clouds: Clouds) -> None:
    details = json.loads(json.dumps(judge(clouds()).details, allow_nan=False))
    assert details["protocol"] == "linear-v1"
    assert details["search"]["converged"] is True
    assert max(details["search"]["gradient"]) <= details["tolerance"]
    assert len(details["penalties"]) == len(details["val_top1"]) == len(details["search"]["iterations"])

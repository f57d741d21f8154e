from __future__ import annotations

import torch

from clvr_bench.ops.ranking import accuracies, rank_classes

SCORES = torch.tensor([[0.1, 0.9, 0.0, 0.2, 0.3, 0.4, 0.5], [0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.9]])


def test_classes_are_ranked_best_first_and_ties_by_number() -> None:
    assert rank_classes(SCORES).tolist() == [[1, 6, 5, 4, 3], [6, 0, 1, 2, 3]]


def test_accuracies_are_percent_of_samples() -> None:
    assert accuracies(rank_classes(SCORES), torch.tensor([1, 0]), 7) == {"top1": 50.0, "top5": 100.0}
    assert accuracies(rank_classes(SCORES), torch.tensor([2, 5]), 7) == {"top1": 0.0, "top5": 0.0}


def test_top5_of_five_classes_says_nothing_and_is_left_out() -> None:
    scores = SCORES[:, :5]
    assert accuracies(rank_classes(scores), torch.tensor([1, 0]), 5) == {"top1": 100.0}

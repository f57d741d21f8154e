"""What a row's card says, and what is left to its runs."""

from __future__ import annotations

from pathlib import Path

from clvr_bench.records import load_runs
from clvr_bench.report.cards import Card, cards
from clvr_bench.standings import standings
from tests.clvr_bench.records_fake import write_seeds


def card_of(results: Path) -> Card:
    (card,) = cards(standings(load_runs(results)))
    return card


def test_what_all_runs_have_in_common_is_said_once(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [60.0, 61.0])
    card = card_of(tmp_path)
    said = dict(card.facts)
    assert {"pretext_task", "encoder", "recipe", "budget", "precision"} <= set(said)
    assert "seed" not in said
    for seed, run in enumerate(card.runs):
        own = dict(run.facts)
        assert own["seed"] == str(seed)
        assert own["status"] == "done"
        assert not set(own) & {"pretext_task", "encoder", "recipe", "budget", "precision"}


def test_a_lone_run_says_everything_itself(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [60.0])
    card = card_of(tmp_path)
    assert "recipe" not in dict(card.facts)
    assert {"pretext_task", "seed", "recipe"} <= set(dict(card.runs[0].facts))

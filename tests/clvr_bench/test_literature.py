from __future__ import annotations

import re

import pytest

import clvr_bench
from clvr_bench.literature import published_tables
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Kind


@pytest.mark.parametrize("table", published_tables())
def test_names_are_registered_ones_and_figures_have_a_source(table: str) -> None:
    frame = clvr_bench.published(table)
    registered = {entry.name for entry in load_plugins().registry.entries(Kind.PRETEXT_TASK)}
    assert set(frame["pretext_task"]) <= registered | {""}
    assert frame["top1"].dropna().between(0, 100).all()
    assert frame["verified"].dtype == bool


@pytest.mark.parametrize("table", published_tables())
def test_a_source_is_one_short_citation(table: str) -> None:
    paper, file = r"[^,;]+, [A-Za-z]+ [\d.]+(, [^;]+)?", r"github\.com/[\w.-]+/[\w.-]+, [\w./]+"
    for source in set(clvr_bench.published(table)["source"]):
        assert len(source) < 60, source
        assert re.fullmatch(f"{paper}|{file}", source), source


def test_the_23_entries_of_figure_2_are_among_those_on_imagenet() -> None:
    frame = clvr_bench.published("imagenet_linear")
    entries = frame[frame["in_figure2"] == "yes"]
    assert len(entries) == 23
    found = entries[entries["params_m"] == 24].set_index("pretext_task")["top1"]
    assert {name: found[name] for name in ("simclr", "byol", "moco_v2", "swav")} == {
        "simclr": 69.3, "byol": 74.3, "moco_v2": 71.1, "swav": 75.3,
    }  # fmt: skip


def test_what_was_not_seen_in_print_is_marked() -> None:
    frame = clvr_bench.published("imagenet_linear")
    assert 0 < (~frame["verified"]).sum() < len(frame) / 2


def test_an_unknown_table_is_refused_with_those_there_are() -> None:
    with pytest.raises(clvr_bench.ClvrBenchError, match="no table 'figure'\\. There are: cifar10, imagenet"):
        clvr_bench.published("figure")

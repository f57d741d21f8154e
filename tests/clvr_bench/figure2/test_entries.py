from __future__ import annotations

from clvr_bench.figure2.entries import entries
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Kind

PUBLISHED = {
    "supervised": (24, 76.5), "SwAV": (24, 75.3), "BYOL": (24, 74.3), "InfoMin": (24, 73.0), "MoCo v2": (24, 71.1),
    "SimCLR": (24, 69.3), "BYOL (2x)": (94, 77.4), "SimCLR (2x)": (94, 74.2), "BYOL (4x)": (375, 78.6),
    "SimCLR (4x)": (375, 76.5), "PIRL (2x)": (98, 67.4), "MoCo v1 (2x)": (94, 65.4), "MoCo v1 (4x)": (375, 68.6),
    "CMC": (47, 64.1), "CPC v2": (24, 63.8), "PIRL": (24, 63.6), "AMDIM": (194, 63.5), "BigBiGAN-Big": (86, 61.3),
    "MoCo v1": (24, 60.6), "LA": (24, 58.8), "InstDisc": (24, 54.0), "CPC v1": (28, 48.7), "DeepCluster": (15, 48.4),
}  # fmt: skip
"""Millions of parameters and top-1 in percent, as the papers have them, in the figure's order."""


def test_there_are_23_entries_in_the_figures_order_with_the_papers_numbers() -> None:
    assert {entry.label: (entry.params_m, entry.top1) for entry in entries()} == PUBLISHED
    assert [entry.label for entry in entries()] == list(PUBLISHED)


def test_22_markers_are_drawn_where_the_papers_numbers_are_but_for_two_exceptions_that_a_note_states() -> None:
    assert len({entry.drawn for entry in entries()}) == 22
    elsewhere = {
        entry.label: entry for entry in entries()
        if abs(entry.drawn[0] - entry.params_m) > 1 or abs(entry.drawn[1] - entry.top1) > 0.1
    }  # fmt: skip
    assert {label: entry.drawn for label, entry in elsewhere.items()} == {
        "PIRL (2x)": (96.3, 67.56),
        "CPC v2": (24, 63.6),
    }
    assert elsewhere["PIRL (2x)"].note == "the figure draws it near 96M and 67.6"
    assert elsewhere["CPC v2"].note == "shares PIRL's marker"


def test_names_are_registered_ones() -> None:
    registry = load_plugins().registry
    tasks, encoders = ({entry.name for entry in registry.entries(kind)} for kind in (Kind.PRETEXT_TASK, Kind.ENCODER))
    assert {entry.pretext_task for entry in entries()} <= tasks | {""}
    for entry in entries():
        if entry.registered_encoder and entry.registered_encoder not in encoders:
            registry.get(Kind.ENCODER, entry.registered_encoder, "test")  # one of a family, such as timm's


def test_every_entry_has_a_source_and_its_year_and_kind() -> None:
    assert all(len(entry.source) > 5 for entry in entries())
    assert {entry.year for entry in entries()} == {2018, 2019, 2020}
    assert {entry.label for entry in entries() if entry.kind == "supervised"} == {"supervised"}


def test_only_what_widens_another_entrys_encoder_is_a_variant() -> None:
    assert {entry.label for entry in entries() if entry.is_variant} == {
        "BYOL (2x)", "SimCLR (2x)", "BYOL (4x)", "SimCLR (4x)", "PIRL (2x)", "MoCo v1 (2x)", "MoCo v1 (4x)",
    }  # fmt: skip
    assert {entry.label for entry in entries() if entry.widened and not entry.is_variant} == {"BigBiGAN-Big"}

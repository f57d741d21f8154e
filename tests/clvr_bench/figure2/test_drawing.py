from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clvr_bench.errors import ClvrBenchError
from clvr_bench.figure2.comparison import Comparison, Measured, compare
from clvr_bench.figure2.drawing import SIZES, Drawing, picture, settings
from clvr_bench.figure2.entries import entries
from tests.clvr_bench.figure2.test_entries import PUBLISHED

COLORS = {2018: "#1f4fd8", 2019: "#0a7d28", 2020: "#d42a20"}
MARKERS = {2018: "o", 2019: "x", 2020: "^"}


def comparison_of(
    encoder: str = "resnet18", missing: tuple[str, ...] = ("LA", "AMDIM"), spread: float = 60
) -> Comparison:
    """Compare with scores that lie close together; with no encoder, of as many parameters as published."""
    random = np.random.default_rng(0)
    pairs = []
    for entry in entries():
        row = None
        if entry.label not in missing and not (encoder and entry.is_variant):
            top1 = 30 + spread * random.random()
            name, params = (encoder, 11.2) if encoder else (entry.registered_encoder or "other", entry.params_m)
            row = Measured(name, params, top1, 1.0, 2.5, 3, "")
        pairs.append((entry, row))
    return Comparison(tuple(pairs), "suite", "CIFAR-10", 200, "linear@1")


def drawn(comparison: Comparison, size: Any = "two-column") -> Figure:
    with settings():
        figure = Drawing(comparison, SIZES[size]).figure()
        FigureCanvasAgg(figure).draw()
    return figure


def points_of(axes: Axes) -> dict[tuple[float, float], tuple[str, str]]:
    """Return marker and color of every point that an error bar's line draws."""
    lines = [container.lines[0] for container in axes.containers]
    return {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): (line.get_marker(), line.get_color())
        for line in lines
    }


def texts_of(axes: Axes) -> list[Any]:
    return [text for text in axes.texts if text.get_text() and text.get_visible()]


def test_every_published_point_is_drawn_where_the_papers_numbers_are() -> None:
    (axes,) = drawn(compare()).axes
    points = points_of(axes)
    assert len(points) == 22
    for label, (params_m, top1) in PUBLISHED.items():
        if label in ("PIRL (2x)", "CPC v2"):  # the two known exceptions
            continue
        assert any(abs(x - params_m) <= 1 and abs(y - top1) <= 0.1 for x, y in points), label
    assert (96.3, 67.56) in points


def test_markers_colors_axes_ticks_and_legend_are_the_figures() -> None:
    (axes,) = drawn(compare()).axes
    points = points_of(axes)
    for entry in entries():
        look = ("s", "black") if entry.kind == "supervised" else (MARKERS[entry.year], COLORS[entry.year])
        assert points[entry.drawn] == look, entry.label
    squares = [container.lines[0].get_marker() == "s" for container in axes.containers]
    assert [line.lines[0].get_alpha() for line in axes.containers] == [1 if square else 0.6 for square in squares]
    assert sum(squares) == 1
    assert axes.get_xlabel() == "Number of Model Parameters (Millions)"
    assert axes.get_ylabel() == "ImageNet Top-1 Accuracy (%)"
    assert axes.get_xticks().tolist() == list(range(0, 351, 50))
    assert axes.get_yticks().tolist() == list(range(50, 81, 5))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["2018", "2019", "2020"]
    assert all(line.get_visible() for line in [*axes.get_xgridlines(), *axes.get_ygridlines()])


def test_every_marker_has_its_label_and_two_share_one() -> None:
    (axes,) = drawn(compare()).axes
    assert sorted(text.get_text() for text in texts_of(axes)) == sorted(
        {*PUBLISHED, "CPC v2 & PIRL"} - {"CPC v2", "PIRL"}
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [60, 4])
@pytest.mark.parametrize("encoder", ["resnet18", ""])
def test_labels_never_overlap_and_stay_on_the_page(size: str, spread: float, encoder: str) -> None:
    figure = drawn(comparison_of(encoder, spread=spread), size)
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in texts_of(axes)]
        assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
        everything = [*boxes, axes.xaxis.label.get_window_extent(), axes.title.get_window_extent()]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 + 1 for box in everything)


def test_with_one_encoder_the_measured_ones_stand_in_their_order_with_intervals_and_the_missing_are_named() -> None:
    comparison = comparison_of()
    _, strip, _ = drawn(comparison).axes
    names = [label.get_text() for label in strip.get_yticklabels()]
    ordered = sorted(comparison.measured, key=lambda pair: -pair[1].top1)
    assert names == [*(entry.label for entry, _ in ordered), "AMDIM", "LA"]
    assert list(points_of(strip)) == [(found.top1, height) for height, (_, found) in enumerate(ordered)]
    assert [text.get_text() for text in texts_of(strip)] == ["no run", "no run"]
    ends = strip.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([ordered[0][1].top1 - 2.5, ordered[0][1].top1 + 2.5])
    axis, *wider = strip.get_xlabel().split("\n")
    assert axis == "Top-1 on CIFAR-10 (%), linear probe, 95% interval"
    said = " ".join(wider).replace("\N{NO-BREAK SPACE}", " ").removeprefix("no run: ").split(", ")
    assert said == [entry.label for entry in comparison.missing if entry.is_variant]
    assert strip.get_title(loc="left") == "As measured: CIFAR-10\n200 epochs, resnet18"


def test_one_seed_has_no_interval_to_name() -> None:
    comparison = comparison_of()
    pairs = tuple((entry, found and replace(found, interval=None, seeds=1)) for entry, found in comparison.pairs)
    _, strip, _ = drawn(replace(comparison, pairs=pairs)).axes
    assert strip.get_xlabel().startswith("Top-1 on CIFAR-10 (%), linear probe\n")


@pytest.mark.parametrize("epochs", [10, 200])
def test_titles_of_panels_keep_apart(epochs: int) -> None:
    comparison = comparison_of()
    long = "resnet18_small_w16_as_long_as_it_gets"
    pairs = tuple((entry, found and replace(found, encoder=long)) for entry, found in comparison.pairs)
    figure = drawn(replace(comparison, pairs=pairs, dataset="cifar10-jpeg", epochs=epochs))
    figure.canvas.draw()
    _, strip, orders = (axes.title.get_window_extent() for axes in figure.axes)
    assert strip.x1 < orders.x0


def test_with_several_encoders_top1_stands_over_parameters_and_the_missing_are_named() -> None:
    comparison = comparison_of(encoder="")
    _, scatter, _ = drawn(comparison).axes
    assert set(points_of(scatter)) == {(found.params_m, found.top1) for _, found in comparison.measured}
    assert {text.get_text() for text in texts_of(scatter)} == {entry.label for entry, _ in comparison.measured}
    assert "no run: AMDIM, LA" in scatter.get_xlabel()


def test_both_orders_hold_methods_of_one_width_alone_and_say_how_far_they_agree() -> None:
    comparison = comparison_of(encoder="")
    _, _, orders = drawn(comparison).axes
    labels = " ".join(text.get_text() for text in texts_of(orders))
    assert "(2x)" not in labels
    assert "BigBiGAN" not in labels
    assert "supervised" not in labels
    assert str(comparison.agreement) in orders.get_xlabel()
    assert f"{comparison.moved_most[0].entry.label} {comparison.moved_most[0].places:+g}" in orders.get_xlabel()
    assert [label.get_text() for label in orders.get_xticklabels()] == ["published,\nImageNet", "measured,\nCIFAR-10"]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_numbers_give_the_same_bytes(kind: str) -> None:
    assert picture(comparison_of(), kind) == picture(comparison_of(), kind)


def test_text_stays_text_in_svg() -> None:
    svg = picture(comparison_of(), "svg").decode()
    assert all(f">{word}<" in svg for word in ("BYOL (4x)", "As published", "no run"))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match=r"unknown kind of picture 'gif'\. Available: pdf, png, svg"):
        picture(compare(), "gif")


def test_users_settings_of_matplotlib_stay_as_they_were() -> None:
    script = (
        "import matplotlib as mpl; before = dict(mpl.rcParams); from clvr_bench.figure2.comparison import compare\n"
        "from clvr_bench.figure2.drawing import picture; picture(compare(), 'png'); assert dict(mpl.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clvr_bench.charts.costs import Cost, draw_costs, front, spots
from clvr_bench.charts.look import settings
from clvr_bench.charts.rows import Row
from clvr_bench.errors import ClvrBenchError

EPOCHS = ([{"epoch": 1, "loss": 1.0}],)


def row_of(
    name: str, seconds: float, top1: float, passes: float = 1000, labels: str = "none", encoder: str = "usual"
) -> Row:
    return Row(name, labels, (top1 - 2, top1 + 2), (seconds, seconds), passes, EPOCHS, encoder)


ROWS = [
    row_of("supervised", 10, 95, labels="fine"),
    row_of("dear_and_good", 400, 80, 900),
    row_of("cheap", 20, 40, 100),
    row_of("beaten", 300, 50, 500),
    row_of("better", 200, 60, 500),
    Row("random_init", top1=(15.0,)),
    Row("not_judged", seconds=(5.0,), histories=EPOCHS),
]


def drawn(rows: list[Row], cost: Cost = "seconds") -> Figure:
    with settings():
        figure = draw_costs(rows, cost)
        FigureCanvasAgg(figure).draw()
    return figure


def test_trained_and_judged_rows_have_a_spot_cheapest_first() -> None:
    assert [(spot.row.name, spot.cost, spot.top1) for spot in spots(ROWS, "seconds")] == [
        ("supervised", 10, 95), ("cheap", 20, 40), ("better", 200, 60), ("beaten", 300, 50), ("dear_and_good", 400, 80),
    ]  # fmt: skip
    assert [spot.cost for spot in spots(ROWS, "encoder_passes")] == [100, 500, 500, 900, 1000]


@pytest.mark.parametrize("cost", ["seconds", "encoder_passes"])
def test_the_front_is_what_nothing_without_labels_beats(cost: Cost) -> None:
    assert [spot.row.name for spot in front(spots(ROWS, cost), cost)] == ["cheap", "better", "dear_and_good"]


def test_passes_of_a_rarer_encoder_are_not_compared() -> None:
    rows = [*ROWS, row_of("other", 15, 70, 50, encoder="rare")]
    assert [spot.row.name for spot in front(spots(rows, "seconds"), "seconds")] == ["other", "dear_and_good"]
    passes = front(spots(rows, "encoder_passes"), "encoder_passes")
    assert [spot.row.name for spot in passes] == ["cheap", "better", "dear_and_good"]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_front_is_all_that_is_better_than_whatever_costs_as_much_or_less(pairs: list[tuple[int, int]]) -> None:
    rows = [row_of(f"row{number}", *pair) for number, pair in enumerate(pairs)]
    expected = {
        (cost, top1)
        for cost, top1 in pairs
        if not any((c, t) != (cost, top1) and c <= cost and t >= top1 for c, t in pairs)
    }
    found = [(spot.cost, spot.top1) for spot in front(spots(rows, "seconds"), "seconds")]
    assert found == sorted(expected)


def test_filled_circles_are_the_front_and_squares_saw_labels() -> None:
    (axes,) = drawn(ROWS).axes
    marks = {
        tuple(np.asarray(line.get_xydata())[0]): (line.get_marker(), line.get_markerfacecolor() != "white")
        for line in axes.lines
        if line.get_marker() != "None"
    }
    assert marks == {
        (10, 95): ("s", False), (20, 40): ("o", True), (200, 60): ("o", True), (300, 50): ("o", False),
        (400, 80): ("o", True),
    }  # fmt: skip
    assert axes.get_xscale() == "log"


def test_untrained_rows_are_broken_lines_at_their_top1() -> None:
    (axes,) = drawn(ROWS).axes
    heights = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(ys) for ys in heights] == [[15, 15]]


def test_the_name_of_a_broken_line_stands_at_its_right_end_where_the_left_one_is_taken() -> None:
    name = "random_init, resnet18_small_w16"
    (axes,) = drawn(
        [row_of("cheapest", 10, 15.2, labels="fine"), row_of("best", 100_000, 50), Row(name, top1=(15.0,))]
    ).axes
    (box,) = [text.get_window_extent() for text in axes.texts if text.get_text() == name]
    window, height = axes.get_window_extent(), axes.transData.transform((10, 15.0))[1]
    assert box.y0 < height < box.y1
    assert window.x1 - 20 < box.x1 < window.x1


@pytest.mark.parametrize("cost", ["seconds", "encoder_passes"])
def test_every_row_is_named_once_and_no_name_covers_another(cost: Cost) -> None:
    random = np.random.default_rng(0)
    rows = [
        row_of(f"a_pretext_task_{n}", float(random.integers(50, 300)), 30 + 40 * random.random(), 10_000 * (1 + n % 4))
        for n in range(36)
    ]
    (axes,) = drawn([*rows, Row("random_init", top1=(15.0,)), Row("raw_pixels", top1=(16.0,))], cost).axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(
        [r.name for r in rows] + ["random_init", "raw_pixels"]
    )
    boxes = [text.get_window_extent().padded(-0.5) for text in axes.texts]  # they may share an edge
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    window = axes.get_window_extent()
    assert all(window.x0 <= box.x0 and box.x1 <= window.x1 for box in boxes)


def test_nothing_trained_and_judged_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="no row was both trained and judged by the linear evaluation"):
        draw_costs([Row("random_init", top1=(15.0,))], "seconds")

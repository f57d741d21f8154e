from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clvr_bench.charts.learning import COLUMNS, draw_learning
from clvr_bench.charts.look import settings
from clvr_bench.charts.rows import Row
from clvr_bench.errors import ClvrBenchError


def row_of(name: str, *curves: tuple[float, ...], top1: tuple[float, ...] = (50.0,), labels: str = "none") -> Row:
    histories = tuple([{"epoch": i + 1, "knn_top1": v, "loss": 9 - v} for i, v in enumerate(c)] for c in curves)
    return Row(name, labels=labels, top1=top1, histories=histories)


ROWS = [
    row_of("supervised", (20.0, 80.0), top1=(90.0,), labels="fine"),
    row_of("simclr", (10.0, 20.0), (20.0, 60.0), top1=(60.0, 61.0)),
    Row("random_init", top1=(15.0,)),
    row_of("byol", (5.0, 6.0), top1=()),
]


def drawn(rows: list[Row], *arguments: Any, **options: Any) -> Figure:
    with settings():
        figure = draw_learning(rows, *arguments, **options)
        FigureCanvasAgg(figure).draw()
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def test_each_trained_row_has_a_panel_in_order_with_its_top1_in_the_title() -> None:
    titles = [axes.get_title(loc="left") for axes in panels(drawn(ROWS))]
    assert titles == ["supervised: 90.0", "simclr: 60.5", "byol"]


def test_a_panel_shows_the_mean_and_the_range_of_its_seeds() -> None:
    axes = panels(drawn(ROWS))[1]
    (line,) = axes.lines
    assert np.array(line.get_xydata()).tolist() == [[1, 15], [2, 40]]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(map(float, corner)) for corner in np.asarray(band)} == {(1, 10), (1, 20), (2, 20), (2, 60)}


def test_all_others_are_behind_in_gray_on_the_same_axis() -> None:
    figure = drawn(ROWS)
    simclr = panels(figure)[1]
    context = simclr.collections[1]
    assert [np.asarray(path.vertices).tolist() for path in context.get_paths()] == [
        [[1, 20], [2, 80]],
        [[1, 5], [2, 6]],
    ]
    assert context.get_zorder() < simclr.lines[0].get_zorder()
    assert len({axes.get_ylim() for axes in panels(figure)}) == 1


def test_losses_have_a_scale_each_and_nothing_behind() -> None:
    figure = drawn(ROWS, "loss", shared=False)
    assert all(len(axes.collections) == 1 for axes in panels(figure))
    assert len({axes.get_ylim() for axes in panels(figure)}) == 3
    assert figure.get_supylabel() == "loss"


def test_the_line_of_a_row_that_saw_labels_is_broken() -> None:
    supervised, simclr, _ = panels(drawn(ROWS))
    assert supervised.lines[0].get_linestyle() == "--"
    assert simclr.lines[0].get_linestyle() == "-"


def test_the_lowest_panel_of_every_column_numbers_its_epochs_and_no_title_leaves_the_picture() -> None:
    names = [f"a_task_with_a_name_{number}" for number in range(COLUMNS + 2)]
    figure = drawn([row_of(f"{name}, with an option={name}", (10.0, 20.0)) for name in names])
    below = {axes for axes in panels(figure) if any(label.get_visible() for label in axes.get_xticklabels())}
    assert below == set(panels(figure)[-COLUMNS:])
    titles = [axes._left_title.get_window_extent() for axes in panels(figure)]  # type: ignore[attr-defined]  # no other way
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in titles)
    assert not any(a.overlaps(b) for a in titles for b in titles if a is not b)


def test_a_measure_that_no_row_has_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="no row has 'entropy' in the history of its epochs"):
        draw_learning(ROWS, "entropy")

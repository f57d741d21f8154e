from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from clvr_bench.charts.labels import Box, label_points, place_labels

FRAME = Box(0, 0, 400, 300)


def test_a_lone_label_stands_right_of_its_point() -> None:
    assert place_labels([(100, 100)], [(40, 10)], FRAME, 5) == [Box(105, 95, 40, 10)]


def test_what_is_in_the_way_moves_it() -> None:
    assert place_labels([(100, 100)], [(40, 10)], FRAME, 5, obstacles=[Box(110, 90, 2, 20)]) == [Box(55, 95, 40, 10)]


def test_at_the_right_edge_it_stands_left_of_it() -> None:
    assert place_labels([(390, 100)], [(40, 10)], FRAME, 5) == [Box(345, 95, 40, 10)]


def test_the_other_end_of_a_line_is_better_than_a_place_farther_away() -> None:
    crowd = [Box(0, 90, 200, 20)]
    sizes = [(40, 10)]
    (apart,) = place_labels([(0, 100)], sizes, FRAME, 5, obstacles=crowd)
    assert apart.bottom == 110
    assert place_labels([(0, 100)], sizes, FRAME, 5, obstacles=crowd, other_ends={0: (400, 100)}) == [
        Box(355, 95, 40, 10)
    ]
    assert place_labels([(0, 100)], sizes, FRAME, 5, other_ends={0: (400, 100)}) == [Box(5, 95, 40, 10)]


def test_boxes_that_share_an_edge_do_not_overlap() -> None:
    assert not Box(0, 0, 10, 10).overlaps(Box(10, 0, 10, 10))
    assert Box(0, 0, 10, 10).overlaps(Box(9, 9, 10, 10))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(60, 340), st.floats(60, 240)), min_size=2, max_size=8))
def test_labels_keep_clear_of_one_another_and_of_all_points(points: list[tuple[float, float]]) -> None:
    boxes = place_labels(points, [(40, 8)] * len(points), FRAME, 3)
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    marks = [Box(x - 3, y - 3, 6, 6) for x, y in points]
    assert not any(box.overlaps(mark) for box in boxes for mark in marks)
    assert all(box.inside(FRAME) for box in boxes)


def test_written_labels_stay_beside_their_points_whatever_lines_lead_to_them() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([1.0, 10.0], [1.0, 2.0], "o")
    edge = axes.get_xlim()[0]
    points = [(edge, 1.0)] * 5 + [(10.0, 2.0)]
    limits = axes.get_xlim(), axes.get_ylim()
    label_points(axes, points, ["crowded"] * 5 + ["alone"], size=10, gap=4)
    figure.draw_without_rendering()
    assert len(axes.lines) > 1  # some of the crowd stand apart
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    *crowd, alone = [text.get_window_extent().padded(-0.5) for text in axes.texts]  # they may share an edge
    assert not any(first.overlaps(second) for first, second in combinations(crowd, 2))
    x, y = axes.transData.transform(points[-1])
    assert min(abs(alone.x0 - x), abs(alone.x1 - x)) < 8
    assert alone.y0 < y < alone.y1


def test_lines_that_are_to_stay_free_are_not_written_over() -> None:
    def written(kept_free: list[list[tuple[float, float]]]) -> Text:
        axes = Figure().add_subplot()
        axes.plot([1.0, 10.0], [1.0, 2.0], "o")
        label_points(axes, [(1.0, 1.0)], ["label"], size=10, gap=4, kept_free=kept_free)
        return axes.texts[0]

    free, beside = written([]), written([[(5.0, 1.0), (1.0, 1.0)]])
    assert free.get_window_extent().y0 < beside.get_window_extent().y0 - 4

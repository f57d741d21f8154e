import re
import subprocess
import sys
from itertools import combinations, product

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from clvr_bench.errors import ClvrBenchError
from clvr_bench.heatmaps import CELL_WIDTHS, TURNED, UPRIGHT, WIDTH, Plan, _luminance, draw, picture, settings
from clvr_bench.pairwise import Score, Study, Subject

Box = tuple[float, float, float, float]  # left, lower, right, upper
NAMES = ("crop", "cutout", "color_jitter", "sobel", "gaussian_noise", "gaussian_blur", "rotate")
WITH_OPTIONS = (
    "crop (area=[0.2,1.0])", "crop (area=[0.5,1.0])", "color_jitter (grayscale=0.2, strength=0.5)", "sobel", "rotate",
)  # fmt: skip
SUBJECT = Subject("pairs", "simclr", "resnet18_small_w16", "shapes")
SETS = {
    "the study's": NAMES,
    "two": ("crop", "rotate"),
    "three": ("crop", "color_jitter", "gaussian_noise"),
    "many": (*NAMES, *(f"augmentation_{n}" for n in range(4))),
    "long": tuple(f"{name}_with_a_longer_name" for name in NAMES),
    "options": WITH_OPTIONS,
}


def study_of(names=NAMES, *, missing=(), seeds=3, scores=None, subject=SUBJECT) -> Study:
    """Make a study whose scores go from 0 to 100, so that every color and width of a number is seen."""
    chains = [(a,) if a == b else (a, b) for a, b in product(names, repeat=2)]
    spread = (12.3, 20.0) if seeds > 1 else (None, None)
    made = {chain: Score(100 * n / (len(chains) - 1), *spread, seeds) for n, chain in enumerate(chains)}
    return Study(subject, 20, made | (scores or {}) | dict.fromkeys(missing), Score(12.3, 0.4, 1.0, seeds))


def drawn(study: Study):
    with settings():
        figure = draw(study)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure, canvas.get_renderer()


def texts_of(figure):
    """Return every text that is seen: cells, names, axes' labels, the color bar's, title and caption."""
    found = [*figure.texts]
    for axes in figure.axes:
        found += [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def words(figure) -> list[str]:
    return [text.get_text() for text in texts_of(figure)]


def overlaps(first: Box, second: Box) -> bool:
    common = [min(first[side], second[side]) - max(first[side - 2], second[side - 2]) for side in (2, 3)]
    return min(common) > 0.5  # pixels, of 100 an inch


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_texts_do_not_overlap_and_stay_on_the_page(names, seeds):
    figure, renderer = drawn(study_of(names, seeds=seeds, missing=[(names[0],)]))
    turned = {text for text in texts_of(figure) if text.get_rotation() == TURNED}
    boxes = {text: text.get_window_extent(renderer).extents for text in texts_of(figure)}
    for (first, box), (second, other) in combinations(boxes.items(), 2):
        both_turned = first in turned and second in turned  # their upright boxes overlap where they do not
        assert both_turned or not overlaps(box, other), (first.get_text(), second.get_text())
    for text, box in boxes.items():
        assert min(box) >= 0, text.get_text()
        assert box[2] <= figure.bbox.width, text.get_text()
        assert box[3] <= figure.bbox.height, text.get_text()


def test_a_cells_texts_lie_within_the_cell():
    figure, renderer = drawn(study_of(seeds=3))
    axes = figure.axes[0]
    cells = [patch.get_window_extent(renderer) for patch in axes.patches]
    for text in axes.texts:
        box = text.get_window_extent(renderer)
        assert any(cell.contains(box.x0, box.y0) and cell.contains(box.x1, box.y1) for cell in cells), text.get_text()


def test_the_studys_names_are_level_and_not_turned():
    figure, _ = drawn(study_of())
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {0.0}
    assert [label.get_text().count("\n") for label in labels] == [1] * 8
    assert "gaussian_\nnoise" in [label.get_text() for label in labels]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == study_of().names


@pytest.mark.parametrize(("names", "turn"), [(SETS["long"], TURNED), (WITH_OPTIONS, UPRIGHT)])
def test_names_that_are_too_wide_are_turned(names, turn):
    assert Plan(study_of(names)).turn == turn


def test_turned_names_have_the_room_of_a_line_between_them():
    plan = Plan(study_of(SETS["many"]))
    assert plan.turn == TURNED
    assert plan.cell_width * 0.64 * 72 > 1.25 * 8  # sin 40 degrees; points


def test_few_names_fill_no_page_and_many_widen_it():
    assert Plan(study_of(SETS["two"])).width < WIDTH
    assert Plan(study_of()).width == pytest.approx(WIDTH)
    many = Plan(study_of(SETS["many"]))
    assert many.width > WIDTH
    assert many.cell_width == CELL_WIDTHS[0]


def test_cells_show_mean_and_deviation_with_one_decimal():
    figure, _ = drawn(study_of(("a", "b"), scores={("a", "b"): Score(56.26, 1.04, 2.6, 3)}))
    assert "56.3" in words(figure)
    assert "± 1.0" in words(figure)


def test_one_seed_has_no_deviation():
    figure, _ = drawn(study_of(("a", "b"), seeds=1))
    assert not [text for text in figure.axes[0].texts if "±" in text.get_text()]


def test_averages_stand_beside_the_rows():
    study = study_of(("a", "b"))  # a: 0.0 and 33.3; b: 66.7 and 100.0
    figure, _ = drawn(study)
    right = sorted(
        (text for text in figure.axes[0].texts if text.get_position()[0] > 2), key=lambda t: t.get_position()[1]
    )
    assert [text.get_text() for text in right] == ["83.3", "16.7"]
    assert study.names == ["b", "a"]


def test_missing_cells_are_hatched_and_have_a_dash():
    figure, _ = drawn(study_of(("a", "b"), missing=[("a", "b")]))
    axes = figure.axes[0]
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    dashes = [text.get_position() for text in axes.texts if text.get_text() == "-"]
    assert [patch.get_xy() for patch in hatched] == [(0, 1)]  # the row of a is the second, the column of b the first
    assert dashes == [(0.5, 1.5)]
    assert "-: no score" in figure.texts[1].get_text()


def test_a_row_without_scores_has_no_average():
    study = Study(SUBJECT, 20, {("a",): Score(30.0, None, None, 1), ("a", "b"): Score(40.0, None, None, 1)})
    figure, _ = drawn(study)
    assert len([patch for patch in figure.axes[0].patches if patch.get_hatch()]) == 3  # b with a, with itself, average


def test_text_stands_out_from_its_cell():
    figure, _ = drawn(study_of())
    axes = figure.axes[0]
    cells = {patch.get_xy(): patch.get_facecolor() for patch in axes.patches if patch.get_fill()}
    inks = set()
    for text in axes.texts:
        (column, row), ink = text.get_position(), text.get_color()
        corner = (column - 0.5, int(row))
        lightness = sorted((_luminance(cells[corner][:3]), _luminance(to_rgb(ink))))
        assert (lightness[1] + 0.05) / (lightness[0] + 0.05) >= 4.5
        inks.add(ink)
    assert inks == {"black", "white"}


def test_a_higher_score_is_lighter_in_gray_too():
    figure, _ = drawn(study_of())
    axes = figure.axes[0]
    shown = {text.get_position(): float(text.get_text()) for text in axes.texts if "±" not in text.get_text()}
    cells = {patch.get_xy(): _luminance(patch.get_facecolor()[:3]) for patch in axes.patches if patch.get_fill()}
    pairs = sorted((score, cells[x - 0.5, int(y)]) for (x, y), score in shown.items())
    grays = [gray for score, gray in pairs]
    assert grays == sorted(grays)


def test_equal_scores_can_be_drawn():
    figure, _ = drawn(
        study_of(("a", "b"), scores=dict.fromkeys([("a",), ("b",), ("a", "b"), ("b", "a")], Score(50.0, 0.0, 0.0, 3)))
    )
    assert words(figure).count("50.0") >= 6


def test_title_axes_and_bar_say_what_is_shown():
    figure, _ = drawn(study_of())
    assert figure.texts[0].get_text() == "simclr with resnet18_small_w16 on shapes"
    assert figure.texts[1].get_text() == (
        "20 epochs; mean ± standard deviation over 3 seeds; diagonal: one augmentation; "
        "no augmentation (none): 12.3 ± 0.4."
    )
    for label in ("first augmentation", "second augmentation", "linear evaluation, top-1 (%)"):
        assert label in words(figure)


def test_a_long_caption_and_title_are_broken_into_lines():
    long = Subject("pairs", "a_task_with_a_rather_long_name", "an_encoder_with_a_rather_long_name", "a set of pictures")
    figure, _ = drawn(study_of(("a", "b"), subject=long))
    assert figure.texts[0].get_text().replace("\n", " ") == str(long)
    assert "\n" in figure.texts[0].get_text()


def test_text_of_an_svg_is_text():
    svg = picture(study_of(), "svg").decode()
    found = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {*NAMES, "56.2", "± 12.3", "first augmentation", "linear evaluation, top-1 (%)"} <= {*found}
    assert "\\$" not in svg


def test_names_may_hold_what_others_take_for_formulas():
    svg = picture(study_of(("a$b$c", "d<e")), "svg").decode()
    assert ">a$b$c<" in svg
    assert ">d&lt;e<" in svg


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_each_kind_is_what_it_says_and_the_same_bytes_again(kind, start):
    study = study_of(("crop", "rotate"))
    assert picture(study, kind).startswith(start)
    assert picture(study, kind) == picture(study, kind)


def test_other_kinds_are_refused():
    with pytest.raises(ClvrBenchError, match=r"unknown kind of picture 'jpg'\. Available: pdf, png, svg\."):
        picture(study_of(), "jpg")


def test_matplotlibs_settings_neither_matter_nor_change():
    with mpl.rc_context({"font.size": 30, "text.usetex": True, "axes.facecolor": "red"}):
        before = {key: value for key, value in mpl.rcParams.items() if key != "backend"}  # is found when it is read
        other = picture(study_of(("a", "b")), "png")
        assert {key: value for key, value in mpl.rcParams.items() if key != "backend"} == before
    assert picture(study_of(("a", "b")), "png") == other


def test_pyplot_is_never_imported_and_matplotlib_only_to_draw():
    program = (
        "import sys, clvr_bench.heatmaps as h\n"
        "from clvr_bench.pairwise import Score, Study, Subject\n"
        "assert 'matplotlib' not in sys.modules\n"
        "score = Score(50.0, None, None, 1)\n"
        "h.picture(Study(Subject('s', 't', 'e', 'd'), 1, {('a',): score, ('a', 'b'): score}), 'png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_cells_are_drawn_as_shapes():
    figure, _ = drawn(study_of())
    cells = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_fill()]
    assert len(cells) == 7 * 8

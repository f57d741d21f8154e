"""The page as text: whole, the same again, and nothing in a name becomes a part of it."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.report.page import report_text
from tests.clvr_bench.records_fake import FakeRun, other_data, write_realistic, write_seeds
from tests.conftest import Answer

ROOT = Path(__file__).parents[3]
NASTY = """</script><img src=x onerror=alert(1)>"' data-x='{{ 7 * 7 }}"""


class Reader(HTMLParser):
    """Collects tags with their attributes, and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def values(self, attribute: str) -> set[str | None]:
        return {attributes[attribute] for _, attributes in self.tags if attribute in attributes}


def write_nasty(suite: Path) -> None:
    """Write runs whose every name, option, note and failure would break a page that does not escape."""
    history = [{"epoch": epoch, "loss": 1.0, "knn_top1": 10.0 * epoch} for epoch in (1, 2)]
    facts = {"augmentation": NASTY, "options_source": NASTY, "options_shown": {NASTY: NASTY}, "labels": NASTY}
    for task in (NASTY, "simclr"):
        write_seeds(
            suite, [60, 61], task=task, encoder=NASTY, dataset=NASTY, notes=[NASTY], facts=facts, history=history
        )
    FakeRun(task="byol", status="failed", reason=NASTY, right=None).write(suite)
    FakeRun(task="moco_v1", target=other_data(name=NASTY), target_facts={"dataset": NASTY}).write(suite)


def test_every_row_and_every_run_is_on_the_page(tmp_path: Path) -> None:
    write_realistic(tmp_path / "first")
    runs = write_seeds(tmp_path / "second", [70.0, 71.0], task="pirl")
    page = Reader(report_text(tmp_path))
    assert {"first", "second"} <= page.values("data-suite")
    assert all(run.folder.name in page.texts for run in runs)
    links = {str(link).removeprefix("#") for link in page.values("href")}
    assert links
    assert links <= page.values("id")


def test_only_the_suite_that_is_named_is_shown(tmp_path: Path) -> None:
    write_seeds(tmp_path / "first", [60.0], task="simclr")
    write_seeds(tmp_path / "second", [70.0], task="pirl")
    assert Reader(report_text(tmp_path, "second")).values("data-suite") == {"second"}


def test_names_never_become_a_part_of_the_page(tmp_path: Path) -> None:
    write_nasty(tmp_path / "<b>suite & 'co'")
    page = Reader(report_text(tmp_path))
    assert NASTY in page.values("data-task")
    assert NASTY in page.values("data-dataset")
    assert NASTY in page.texts
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_a_row_is_in_the_charts_of_its_suite_and_says_its_numbers(tmp_path: Path) -> None:
    history = [{"epoch": epoch, "loss": 1.0, "knn_top1": 10.0 * epoch} for epoch in (1, 2)]
    for task in ("simclr", "byol", "pirl", "moco_v2", "swav"):
        write_seeds(tmp_path / "study", [60.0, 61.0], task=task, history=history)
    runs = write_seeds(tmp_path / "other", [50.0, 52.0], task="moco_v1", history=history)
    page = Reader(report_text(tmp_path))
    assert page.texts.count("epoch 2: 20.0 %, seeds 20.0 to 20.0") == 6
    assert "moco_v1: 51.0 ± 1.4 % after 100 seconds" in page.texts
    (simclr,) = (text for text in page.texts if text.startswith("SimCLR: 60.5 ± 0.7 % measured, 69.3 % published"))
    assert "simclr--resnet18_small--CIFAR-10--seed0" in simclr
    assert not any("MoCo v1: 51.0" in text for text in page.texts)  # one method is no figure
    assert all(run.folder.name in page.texts for run in runs)


def test_the_figure_is_shown_only_where_something_of_it_was_measured(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [60.0], task="rotation")
    assert "figure2" not in Reader(report_text(tmp_path)).values("id")
    write_seeds(tmp_path / "study", [61.0], task="simclr")
    assert "figure2" not in Reader(report_text(tmp_path)).values("id")  # one method is no figure
    write_seeds(tmp_path / "study", [90.0], task="supervised", facts={"ranked": False})
    page = Reader(report_text(tmp_path))
    assert "figure2" in page.values("id")
    assert any(text.endswith(": no rank correlation (n = 1).") for text in page.texts)


def test_rows_of_two_budgets_are_told_apart_everywhere(tmp_path: Path) -> None:
    runs = {}
    for epochs in (211, 433):
        budget = {"epochs": epochs, "batch_size": 512}
        history = [{"epoch": 1, "loss": 1.0, "knn_top1": 20.0}, {"epoch": epochs, "loss": 0.5, "knn_top1": 30.0}]
        runs[epochs] = write_seeds(tmp_path / "study", [100.0, 100.0], budget=budget, history=history)
    write_seeds(tmp_path / "study", [90.0], task="byol", budget=budget)
    page = Reader(report_text(tmp_path))
    assert {"simclr, 211 epochs", "simclr, 433 epochs"} <= set(page.texts)  # panels
    assert page.texts.count("211") == 2  # in the leaderboard and in the health of the features
    for epochs in (211, 433):
        assert any(text.endswith(f"study · {epochs} epochs · batch 512") for text in page.texts)
    assert any("study: CIFAR-10, 433 epochs, linear@1. Published" in text for text in page.texts)
    (simclr,) = (text for text in page.texts if text.startswith("SimCLR: 100.0"))
    assert runs[433][0].folder.name in simclr
    assert runs[211][0].folder.name not in simclr


def test_what_was_never_trained_has_no_curve_and_no_cost(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [60.0], task="random_init", budget=None)
    assert not {"learning", "costs"} & Reader(report_text(tmp_path)).values("id")


def test_a_row_says_how_its_classes_and_its_features_are(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [60.0, 61.0], spread=0.123)
    page = Reader(report_text(tmp_path))
    assert {"class 0", "class 9", "0.123", "120.0"} <= set(page.texts)
    assert "health" in page.values("id")


def test_a_row_says_that_its_predictions_are_damaged(tmp_path: Path) -> None:
    (run,) = write_seeds(tmp_path / "study", [60.0], spread=None)
    next((run.folder / "evaluations").glob("linear-*.npz")).unlink()
    page = Reader(report_text(tmp_path))
    assert any(text.startswith("Predictions are missing or damaged") for text in page.texts)
    assert "health" not in page.values("id")


def test_the_page_names_nothing_to_load(tmp_path: Path) -> None:
    write_realistic(tmp_path / "study")
    page = Reader(report_text(tmp_path))
    assert not page.values("src")
    assert all(str(link).startswith("#") for link in page.values("href"))
    assert any("default-src 'none'" in str(content) for content in page.values("content"))


def test_the_committed_results_make_a_page_of_a_size_to_send() -> None:
    assert len(report_text(ROOT / "results").encode()) < 3_000_000


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    write_realistic(tmp_path / "study")
    assert report_text(tmp_path) == report_text(tmp_path)


def test_the_command_writes_the_page_and_goes_on_without_damaged_records(cli: Callable[..., Answer]) -> None:
    write_seeds(Path("results") / "study", [60.0, 61.0])
    (spoilt,) = Path("results").glob("*/runs/*seed1*/pretraining.json")
    spoilt.write_text("{")
    answer = cli("report", "--suite", "study", "--output", "page.html")
    assert (answer.code, answer.out) == (0, "Written: page.html\n")
    assert "not a readable record" in answer.err
    assert "1 run in 1 row," in Path("page.html").read_text()


def test_the_command_refuses_another_suffix_before_it_reads(cli: Callable[..., Answer]) -> None:
    answer = cli("report", "--output", "page.pdf")
    assert answer.code == 2
    assert "--output page.pdf: expected a name that ends in .html." in answer.err


def test_pictures_become_a_part_of_the_page(cli: Callable[..., Answer]) -> None:
    write_seeds(Path("results") / "study", [60.0])
    Path("<crop>.png").write_bytes(b"\x89PNG")
    Path("turns.svg").write_text("<svg/>")
    assert cli("report", "--picture", "<crop>.png", "--picture", "turns.svg").code == 0
    page = Reader(Path("report.html").read_text())
    assert page.values("src") == {"data:image/png;base64,iVBORw==", "data:image/svg+xml;base64,PHN2Zy8+"}
    assert page.values("alt") == {"<crop>", "turns"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("x.pdf", "expected a name that ends in .png or .svg. Draw one with"), ("x.png", "cannot be read (No such file")],
)
def test_a_picture_that_cannot_be_shown_is_refused(cli: Callable[..., Answer], name: str, said: str) -> None:
    write_seeds(Path("results") / "study", [60.0])
    answer = cli("report", "--picture", name)
    assert answer.code == 2
    assert f"--picture {name}: {said}" in answer.err
    assert not Path("report.html").exists()


def test_no_runs_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"no runs found\. Run a suite first"):
        report_text(tmp_path)

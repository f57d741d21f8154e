"""The table that follows a sweep: what a person at a terminal reads at each of its turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from clvr_bench.cli.live_table import NUMBERS, LiveTable
from clvr_bench.cli.log_lines import LogLines
from clvr_bench.cli.watching import watching
from clvr_bench.contracts.values import Progress
from clvr_bench.plugins import Plugins
from clvr_bench.records import EvaluationRecord, Run
from clvr_bench.suites import parse_suite
from clvr_bench.sweep import Sweep, plan

SUITE = {
    "name": "watched",
    "seeds": [0, 1],
    "encoders": ["tiny"],
    "datasets": [{"name": "shapes", "train_size": 120, "test_size": 60, "image_size": 16}],
    "budget": {"epochs": 2, "batch_size": 20},
    "pretext_tasks": ["raw_pixels", "simclr"],
    "evaluations": ["linear"],
}
Make = Callable[..., Sweep]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def sweep_of(plugins: Plugins, tmp_path: Path) -> Make:
    def make(**changed: Any) -> Sweep:
        suite = parse_suite({**SUITE, **changed}, "test")
        return plan(suite, plugins, results=tmp_path, device=torch.device("cpu"))

    return make


def terminal(width: int = 120, height: int = 40) -> Console:
    return Console(file=StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def table_of(sweep: Sweep, clock: Clock | None = None, **size: int) -> LiveTable:
    return LiveTable(terminal(**size), sweep.suite.name, sweep.planned, clock or Clock())


def lines(table: LiveTable, width: int = 120) -> list[str]:
    console = terminal(width)
    console.print(table.drawn())
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def row(table: LiveTable, number: int) -> str:
    (found,) = (line for line in lines(table)[2:-1] if line.split()[:1] == [str(number)])
    return " ".join(found.split())


def start(table: LiveTable, sweep: Sweep, number: int) -> None:
    table.run_started(number, len(sweep.planned), sweep.planned[number - 1])


def test_a_sweep_ends_with_every_row_done_and_its_top1(sweep_of: Make) -> None:
    sweep = sweep_of()
    with LiveTable(console := terminal(), "watched", sweep.planned) as table:
        assert sweep.run(table).counts == {"done": 4}
    for number in range(1, 5):
        assert " done " in row(table, number)
        assert row(table, number).split()[-1].replace(".", "").isdigit()
    assert "2/2" in row(table, 2)
    assert "4 combinations: 4 done; k-NN on val, top-1 on test" in lines(table)[-1]
    assert isinstance(console.file, StringIO)
    assert lines(table)[-1].strip() in console.file.getvalue()  # the last drawing stays


def test_what_is_done_already_shows_its_top1(sweep_of: Make) -> None:
    first = sweep_of()
    with LiveTable(terminal(), "watched", first.planned) as ran:
        first.run(ran)
    again = table_of(sweep_of())
    assert [row(again, number).split()[-1] for number in (1, 2)] == [row(ran, number).split()[-1] for number in (1, 2)]
    assert "4 combinations: 4 done" in lines(again)[-1]


def test_a_run_under_way_shows_epoch_loss_neighbours_speed_and_time_left(sweep_of: Make) -> None:
    sweep, clock = sweep_of(), Clock()
    table = table_of(sweep, clock)
    start(table, sweep, 2)
    assert row(table, 2) == "2 simclr 0 starting"
    clock.seconds += 30  # setting up is no part of its speed
    table.stepped(Progress(1, 1000, 0, 4))
    clock.seconds += 10
    table.stepped(Progress(101, 1000, 0, 4))
    assert row(table, 2) == "2 simclr 0 training 1/4 200 90 s"  # 100 steps of 20 pictures; 899 steps left
    table.epoch_finished({"loss": 3.14159, "knn_top1": 42.0, "epoch": 1, "seconds": 9.0})
    table.stepped(Progress(250, 1000, 1, 4))
    assert row(table, 2).startswith("2 simclr 0 training 2/4 3.142 42.0 498")
    table.evaluating("linear")
    assert row(table, 2) == "2 simclr 0 evaluating 2/4 3.142 42.0"


def test_a_resumed_run_is_timed_from_where_it_goes_on(sweep_of: Make) -> None:
    sweep, clock = sweep_of(), Clock()
    table = table_of(sweep, clock)
    start(table, sweep, 2)
    table.stepped(Progress(901, 1000, 3, 4))
    clock.seconds += 10
    table.stepped(Progress(951, 1000, 3, 4))
    assert row(table, 2) == "2 simclr 0 training 4/4 100 10 s"


def test_the_epoch_never_passes_the_last(sweep_of: Make) -> None:
    sweep = sweep_of()
    table = table_of(sweep)
    start(table, sweep, 2)
    table.stepped(Progress(1000, 1000, 4, 4))
    assert " 4/4" in row(table, 2)


def finish(table: LiveTable, sweep: Sweep, clock: Clock, number: int, seconds: float, status: str = "done") -> None:
    start(table, sweep, number)
    clock.seconds += seconds
    table.run_finished(sweep.planned[number - 1], status, "")


def test_what_is_left_is_counted_at_the_pace_of_the_runs_that_were_trained(sweep_of: Make) -> None:
    sweep, clock = sweep_of(seeds=[0, 1, 2, 3]), Clock()  # raw_pixels and simclr in turns
    table = table_of(sweep, clock)
    finish(table, sweep, clock, 1, 5)
    assert " left" not in lines(table)[-1]  # a yardstick says nothing of training
    finish(table, sweep, clock, 2, 20)
    assert "2 done; about 60 s left" in lines(table)[-1]  # three times 20
    table.run_postponed(4, 8, sweep.planned[3])
    assert "1 elsewhere; about 40 s left" in lines(table)[-1]
    assert row(table, 4) == "4 simclr 1 elsewhere"
    finish(table, sweep, clock, 6, 2, "failed")
    assert "1 failed, 1 elsewhere; about 20 s left" in lines(table)[-1]
    start(table, sweep, 8)
    table.stepped(Progress(1, 101, 0, 2))
    clock.seconds += 10
    table.stepped(Progress(51, 101, 1, 2))
    assert "about 10 s left" in lines(table)[-1]
    with table:
        pass
    assert " left" not in lines(table)[-1]
    assert "1 unfinished" in lines(table)[-1]


def test_at_the_end_nothing_is_said_of_what_would_be_left(sweep_of: Make) -> None:
    sweep, clock = sweep_of(), Clock()
    with (table := table_of(sweep, clock)):
        finish(table, sweep, clock, 2, 20)
        assert "about 20 s left" in lines(table)[-1]
    assert " left" not in lines(table)[-1]


def test_what_makes_no_sense_is_skipped_from_the_start_and_takes_no_time(sweep_of: Make) -> None:
    sweep, clock = sweep_of(pretext_tasks=["simclr", "mae"]), Clock()
    table = table_of(sweep, clock)
    assert row(table, 2) == "2 mae 0 skipped"
    finish(table, sweep, clock, 1, 30)
    assert "2 skipped; about 30 s left" in lines(table)[-1]


def test_what_was_begun_says_so_and_sets_no_pace(sweep_of: Make) -> None:
    sweep, clock = sweep_of(pretext_tasks=["simclr"], seeds=[0, 1, 2]), Clock()
    sweep.planned[:2] = [
        replace(one, standing=how) for one, how in zip(sweep.planned[:2], ("resume", "evaluate"), strict=True)
    ]
    table = table_of(sweep, clock)
    assert [row(table, number) for number in (1, 2, 3)] == [
        "1 simclr 0 to resume",
        "2 simclr 1 to evaluate",
        "3 simclr 2 waiting",
    ]
    finish(table, sweep, clock, 1, 1)
    assert " left" not in lines(table)[-1]


def test_top1_is_that_of_the_suites_own_probe_on_its_own_data(sweep_of: Make) -> None:
    sweep = sweep_of(pretext_tasks=["raw_pixels"], seeds=[0])
    sweep.run()
    (planned,) = sweep.planned
    (own,) = Run.load(planned.folder).evaluations
    others = [
        {**own.identity, "dataset": {"name": "other"}},
        *({**own.identity, "evaluation": {**own.identity["evaluation"], "options": {"other": i}}} for i in range(9)),
    ]
    records = [EvaluationRecord(identity, metrics={"top1": 99.9}) for identity in others]
    assert min(record.id for record in records) < own.id < max(record.id for record in records)
    for record in records:
        record.save(planned.folder / "evaluations" / f"{record.file_stem}.json")
    again = sweep_of(pretext_tasks=["raw_pixels"], seeds=[0])
    table = table_of(again)
    assert row(table, 1).split()[-1] == f"{own.metrics['top1']:.1f}"
    start(table, again, 1)
    table.evaluated(records[1])
    assert row(table, 1).split()[-1] == f"{own.metrics['top1']:.1f}"


def test_what_another_process_finished_becomes_done(sweep_of: Make) -> None:
    sweep, other = sweep_of(), sweep_of()
    table = table_of(sweep)
    table.run_postponed(1, 4, sweep.planned[0])
    other.run()
    assert sweep.run(table).counts == {"done": 4}
    assert " done " in row(table, 1)
    assert row(table, 1).split()[-1].replace(".", "").isdigit()
    assert "4 done; " in lines(table)[-1]


def test_reasons_and_warnings_stand_above_the_table(sweep_of: Make) -> None:
    sweep = sweep_of(pretext_tasks=["loses_numbers", "simclr"], seeds=[0])
    with LiveTable(console := terminal(200), "watched", sweep.planned) as table:
        assert sweep.run(table).counts == {"failed": 1, "done": 1}
        table.warned("the disk is slow [not markup]")
    assert isinstance(console.file, StringIO)
    assert "failed: loses_numbers: " in console.file.getvalue()
    assert "warning: the disk is slow [not markup]" in console.file.getvalue()
    assert " failed" in row(table, 1)
    assert "1 done, 1 failed; " in lines(table)[-1]


def test_leaving_in_the_midst_says_unfinished(sweep_of: Make) -> None:
    sweep = sweep_of()
    table = table_of(sweep)
    table.__enter__()
    start(table, sweep, 2)
    table.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert row(table, 2) == "2 simclr 0 unfinished"


def test_a_low_terminal_shows_the_rows_around_what_runs_and_all_in_the_end(sweep_of: Make) -> None:
    sweep = sweep_of(seeds=list(range(10)))
    table = table_of(sweep, height=12)
    numbers = [line.split()[0] for line in lines(table)[2:-1]]
    assert numbers == ["1", "2", "3", "4", "5", "6"]
    assert "6 rows shown" in lines(table)[-1]
    start(table, sweep, 10)
    assert [line.split()[0] for line in lines(table)[2:-1]] == ["8", "9", "10", "11", "12", "13"]
    table.run_finished(sweep.planned[9], "done", "")
    start(table, sweep, 20)
    assert [line.split()[0] for line in lines(table)[2:-1]] == ["15", "16", "17", "18", "19", "20"]
    with table:
        pass
    assert len(lines(table)[2:-1]) == 20


def test_columns_are_those_that_tell_runs_apart(sweep_of: Make) -> None:
    plain = lines(table_of(sweep_of(seeds=[0])))[1].split()
    assert plain[:4] == ["#", "pretext", "task", "state"]
    several = table_of(sweep_of(encoders=["tiny", "resnet18_small_w16"], seeds=[0]))
    assert lines(several)[1].split()[:5] == ["#", "pretext", "task", "encoder", "state"]
    assert row(several, 1) == "1 raw_pixels waiting"
    options = table_of(sweep_of(pretext_tasks=["raw_pixels", {"name": "simclr", "temperature": [0.3, 0.2]}], seeds=[0]))
    assert row(options, 2) == "2 simclr(temperature=0.3) waiting"
    assert row(options, 1) == "1 raw_pixels waiting"


def test_a_narrow_terminal_goes_without_numbers_before_it_cuts_names(sweep_of: Make) -> None:
    sweep, clock = sweep_of(pretext_tasks=[{"name": "simclr", "temperature": [0.3, 0.2]}]), Clock()
    table = table_of(sweep, clock)
    headings = {
        width: [name for name in NUMBERS if name in lines(table_of(sweep, width=width), width=width)[1]]
        for width in (120, 80, 70)
    }
    assert headings[120] == list(NUMBERS)
    assert headings[80] == ["epoch", "k-NN %", "left", "top-1 %"]
    assert headings[70] == ["epoch", "left", "top-1 %"]
    start(table, sweep, 1)
    for width in (120, 80, 70):
        drawn = lines(table_of(sweep, width=width), width=width)
        assert max(map(len, drawn)) <= width
        assert "simclr(temperature=0.3)" in drawn[2]
        assert "simclr(temperature=0.2)" in drawn[3]
        assert len(drawn) == len(sweep.planned) + 3  # a line a row


def test_no_number_is_cut_or_broken(sweep_of: Make) -> None:
    sweep, clock = sweep_of(seeds=[0], budget={"epochs": 1000, "batch_size": 20}), Clock()
    table = table_of(sweep, clock)
    start(table, sweep, 2)
    table.stepped(Progress(0, 200_000, 0, 1000))
    clock.seconds += 1
    table.stepped(Progress(30, 200_000, 100, 1000))
    table.epoch_finished({"loss": -1.23456e-05, "knn_top1": 100.0, "epoch": 1, "seconds": 9.0})
    assert row(table, 2) == "2 simclr training 101/1000 -1.235e-05 100.0 600 111 min"
    assert len(lines(table)) == 5


class Screen(StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("console", "kind"),
    [
        (Console(file=Screen()), LiveTable),
        (Console(file=StringIO()), LogLines),
        (Console(file=StringIO(), _environ={"FORCE_COLOR": "1"}), LogLines),
        (Console(file=Screen(), _environ={"TERM": "dumb"}), LogLines),
    ],
    ids=["terminal", "log", "colored log", "dumb"],
)
def test_a_log_gets_lines_and_a_terminal_the_table(sweep_of: Make, console: Console, kind: type) -> None:
    with watching(sweep_of(), console) as listener:
        assert type(listener) is kind

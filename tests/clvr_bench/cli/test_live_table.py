"""The table that follows a sweep: what a person at a terminal reads at each of its turns."""

from __future__ import annotations

from collections.abc import Callable
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


def test_what_is_left_counts_waiting_runs_at_the_pace_of_those_that_ended(sweep_of: Make) -> None:
    sweep, clock = sweep_of(), Clock()
    table = table_of(sweep, clock)
    assert "left" not in lines(table)[-1]
    start(table, sweep, 1)
    clock.seconds += 20
    table.run_finished(sweep.planned[0], "done", "")
    assert "about 60 s left" in lines(table)[-1]  # three times 20
    table.run_postponed(4, 4, sweep.planned[3])
    assert "1 elsewhere; about 40 s left" in lines(table)[-1]
    assert row(table, 4) == "4 simclr 1 elsewhere"


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
    start(table, sweep, 20)
    assert [line.split()[0] for line in lines(table)[2:-1]] == ["8", "9", "10", "11", "12", "13"]  # 10 did not end
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


def test_a_narrow_terminal_cuts_names_and_no_number(sweep_of: Make) -> None:
    sweep, clock = sweep_of(pretext_tasks=[{"name": "simclr", "temperature": [0.3, 0.2]}]), Clock()
    table = table_of(sweep, clock)
    start(table, sweep, 1)
    table.stepped(Progress(1, 200_000, 0, 100))
    clock.seconds += 1
    table.stepped(Progress(5_000, 200_000, 2, 100))
    table.epoch_finished({"loss": -12.34567, "knn_top1": 100.0, "epoch": 1, "seconds": 9.0})
    drawn = lines(table, width=80)
    assert max(map(len, drawn)) <= 80
    assert [name in " ".join(drawn[1].split()) for name in NUMBERS] == [True] * len(NUMBERS)
    assert "…" in drawn[2]
    assert drawn[2].split()[-6:] == ["training", "3/100", "-12.346", "100.0", "99,980", "39", "s"][-6:]
    assert len(drawn) == len(sweep.planned) + 3


@pytest.mark.parametrize(
    ("console", "kind"),
    [
        (terminal(), LiveTable),
        (Console(file=StringIO()), LogLines),
        (Console(file=StringIO(), force_terminal=True, _environ={"TERM": "dumb"}), LogLines),
    ],
    ids=["terminal", "log", "dumb"],
)
def test_a_log_gets_lines_and_a_terminal_the_table(sweep_of: Make, console: Console, kind: type) -> None:
    with watching(sweep_of(), console) as listener:
        assert type(listener) is kind

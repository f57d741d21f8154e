"""Finds two rows among records, refuses those that cannot be compared, and tests their difference. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.groups import ARROW, Group, group_runs, told_apart, without_superseded
from clvr_bench.matchups import Matchup, Verdict
from clvr_bench.records import Run, load_runs
from clvr_bench.significance import adjusted_p_values, differences
from clvr_bench.standings import can_be_ranked, correctness, evaluation_title

SHOWN_ROWS = 5
"""Of rows that a name means, in an error."""


def compare_rows(
    results: Path,
    first: str,
    second: str,
    suite: str | None = None,
    *,
    dataset: str | None = None,
    on_damaged: Callable[[str], None] | None = None,
) -> Matchup:
    """Find two rows below a results folder and set their predictions beside each other.

    Interval and p-values are those that ranks rest on, see ``significance``.

    Args:
        results: A folder of suites, or the folder of one suite.
        first: A pretext task, a run's folder, or a part of its name; a run stands for its row, whatever its seed.
        second: Likewise.
        suite: The only suite wanted.
        dataset: The data set that rows are of, as tables call it, such as ``"shapes → digits"`` (``" -> "`` serves
            too); None for rows that were judged on the data that they were pretrained on.
        on_damaged: Is told of records that cannot be read, a line each; what they are about is then left out.

    Raises:
        ClvrBenchError: A name means no row or several, or both the same; the rows were not judged alike, share no seed
            or lack predictions; there are no runs, or a record cannot be read and nobody is told.
    """
    groups = without_superseded(group_runs(load_runs(results, suite, on_damaged)))[0]
    candidates = _of_dataset(groups, dataset)
    names = first, second
    rows = [_find(name, candidates) for name in names]
    _refuse_unlike(names, rows)
    shared = _on_shared_seeds(names, rows)
    labels, own = _read(first, shared[0])
    correct = own, _read(second, shared[1], labels)[1]
    return Matchup(
        names=_titles(*rows),
        suite=_suite(rows[0]),
        dataset=rows[0].dataset,
        evaluation=evaluation_title(rows[0]),
        seeds=tuple(map(_seed, shared[0].runs)),
        labels=labels,
        class_names=rows[0].class_names,
        correct=correct,
        verdict=_verdict(rows, correct, groups, labels) if len(own) > 1 else None,
    )


def _of_dataset(groups: Sequence[Group], dataset: str | None) -> list[Group]:
    if dataset is None:
        return [group for group in groups if group.target is None]
    wanted = dataset.replace(" -> ", ARROW)
    found = [group for group in groups if group.dataset == wanted]
    if not found:
        raise ClvrBenchError(f"compare: {unknown('data set', dataset, {group.dataset for group in groups})}")
    return found


def _find(name: str, groups: Sequence[Group]) -> Group:
    """Return the row that a name means: that of a pretext task, else that of a run.

    Raises:
        ClvrBenchError: There is none, or there are several.
    """
    matches = [group for group in groups if _task(group) == name] or [
        group for group in groups if any(_is_called(run.folder, name) for run in group.runs)
    ]
    if not matches:
        raise ClvrBenchError(f"compare: {unknown('row', name, set(map(_task, groups)))} Or name a run's folder.")
    if len(matches) > 1:
        said = [f" ({text})" if text else "" for text in told_apart(matches)]
        folders = [f"{group.runs[0].folder}{text}" for group, text in zip(matches, said, strict=True)][:SHOWN_ROWS]
        listed = ", ".join([*folders, *(["..."] if len(matches) > SHOWN_ROWS else [])])
        hint = "Choose with --suite or --dataset, or name a run of the one that you mean."
        raise ClvrBenchError(f"compare {name}: {len(matches)} rows match, with the runs {listed}. {hint}")
    return matches[0]


def _is_called(folder: Path, name: str) -> bool:
    return bool(name) and (name in folder.name or folder.resolve() == Path(name).resolve())


def _task(group: Group) -> str:
    return str(group.identity["pretext_task"]["name"])


def _refuse_unlike(names: tuple[str, str], rows: Sequence[Group]) -> None:
    """Refuse rows that are one, that were not judged, or that were not judged alike."""
    first, second = rows
    if first is second:
        raise ClvrBenchError(f"compare: '{names[0]}' and '{names[1]}' are the same row. Name two.")
    for name, row in zip(names, rows, strict=True):
        if not row.counted:
            hint = "Run its suite, or clvr-bench evaluate."
            raise ClvrBenchError(f"compare {name}: no run of it has been judged by the linear evaluation. {hint}")
    if first.scope == second.scope:
        return
    reasons = (("of different suites", _suite), ("judged on different data", _data), ("judged differently", _judge))
    what, described = next((reason for reason in reasons if reason[1](first) != reason[1](second)), reasons[-1])
    hint = "Only rows that are judged alike can be compared."
    raise ClvrBenchError(
        f"compare: {names[0]} and {names[1]} are {what}: {described(first)}, {described(second)}. {hint}"
    )


def _suite(group: Group) -> str:
    return group.runs[0].suite


def _data(group: Group) -> str:
    version = (group.target or group.identity["dataset"]).get("version")
    return f"{group.dataset} (fingerprint {group.fingerprint}" + (f", version {version})" if version else ")")


def _judge(group: Group) -> str:
    protocols = {record.identity["protocol"] for record in group.linear.values()}
    return f"{evaluation_title(group)} ({', '.join(sorted(protocols))})"


def _on_shared_seeds(names: tuple[str, str], rows: Sequence[Group]) -> list[Group]:
    """Return both rows with the runs of those seeds that count in both."""
    runs = [{_seed(run): run for run in row.counted} for row in rows]
    shared = sorted(set(runs[0]) & set(runs[1]))
    if not shared:
        has = [f"{name} has {', '.join(map(str, own))}" for name, own in zip(names, runs, strict=True)]
        raise ClvrBenchError(f"compare: no seed is shared: {'; '.join(has)}. Run both with the same seeds.")
    return [replace(row, runs=tuple(own[seed] for seed in shared)) for row, own in zip(rows, runs, strict=True)]


def _seed(run: Run) -> int:
    return int(run.pretraining.identity["seed"])


def _read(
    name: str, row: Group, labels: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return labels and correctness of a row, whose labels must be those that are given."""
    try:
        return correctness(row, labels)
    except ClvrBenchError as error:
        raise ClvrBenchError(f"compare {name}: {error}. Run its suite again.") from None


def _verdict(
    rows: Sequence[Group], correct: Sequence[NDArray[np.bool_]], groups: Sequence[Group], labels: NDArray[np.int64]
) -> Verdict:
    """Test a pair among the ranked rows that it stands with, as ranking them does."""
    keys = [row.key for row in rows]
    others = (group for group in groups if can_be_ranked(group) and group.key not in keys)
    contests = {row.contest for row in rows}
    everyone = [*correct, *_readable((group for group in others if group.contest in contests), labels)]
    found = differences(everyone)
    as_ranked = len(contests) == 1 and all(can_be_ranked(row) and len(row.counted) == len(correct[0]) for row in rows)
    return Verdict(
        ci95=100 * float(found.half_widths[0, 1]),
        p_value=float(found.p_values[0, 1]),
        adjusted_p_value=float(adjusted_p_values(found.p_values)[0, 1]) if as_ranked else None,
        pairs=len(everyone) * (len(everyone) - 1) // 2,
    )


def _readable(groups: Iterable[Group], labels: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """Yield which pictures rows got right; those whose predictions cannot be used are not ranked either."""
    for group in groups:
        try:
            yield correctness(group, labels)[1]
        except ClvrBenchError:
            continue


def _titles(first: Group, second: Group) -> tuple[str, str]:
    """Name two rows by their pretext tasks, and where these are the same by what else tells them apart."""
    tasks = _task(first), _task(second)
    if tasks[0] != tasks[1]:
        return tasks
    own, other = told_apart([first, second])
    if own == other:
        own, other = first.key, second.key
    return f"{tasks[0]} ({own or '-'})", f"{tasks[1]} ({other or '-'})"

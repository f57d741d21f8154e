"""Finds the runs that a command names, and tells of records that cannot be read. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from clvr_bench.errors import ClvrBenchError, DamagedFile
from clvr_bench.records import Run, run_folders

SHOWN_NAMES = 5
"""Of runs that match, in an error."""


def warn_of_damage(message: str) -> None:
    """Name a damaged record on standard error; a command that reads goes on with the others."""
    Console(stderr=True).print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)


def find_run(command: str, name: str, results: Path) -> Run:
    """Return the one run of a folder, or of a part of its name.

    Raises:
        ClvrBenchError: No run has this name, or several have.
    """
    (folder,) = _folders(command, name, results, hint="Name one, or its folder.")
    return Run.load(folder, on_damaged=warn_of_damage)


def find_runs(command: str, names: Sequence[str], results: Path, *, take_all: bool) -> list[Run]:
    """Return the runs that are named, each once; of several, those whose records can be read.

    Args:
        command: For messages.
        names: Folders, or parts of their names; none where all runs are wanted.
        results: A folder of suites, or the folder of one suite.
        take_all: Whether a name may mean several runs; several names may in any case.

    Raises:
        ClvrBenchError: A name means no run, or several where one is wanted; or the only run's record cannot be read.
    """
    one, hint = not take_all and len(names) < 2, "Name one, or its folder, or take them --all."
    found = [_folders(command, name, results, hint=hint, one=one) for name in names or [""]]
    folders = {folder.resolve(): folder for matches in found for folder in matches}
    return list(_read(list(folders.values())))


def _read(folders: Sequence[Path]) -> Iterator[Run]:
    """Read runs; damaged evaluations, which are named once more when they are set aside, are passed over silently."""
    for folder in folders:
        try:
            yield Run.load(folder, on_damaged=lambda _: None)
        except DamagedFile as error:
            if len(folders) == 1:
                raise
            warn_of_damage(str(error))


def _folders(command: str, name: str, results: Path, *, hint: str, one: bool = True) -> list[Path]:
    if name and (Path(name) / "pretraining.json").is_file():
        return [Path(name)]
    folders = list(run_folders(results))
    if not folders:
        raise ClvrBenchError(f"{results}: no runs found. Run a suite first, or name the folder with --results.")
    matches = [folder for folder in folders if name in folder.name]
    if not matches or (one and len(matches) > 1):
        raise ClvrBenchError(f"{command} {name}: {len(matches)} runs in {results} match ({_listed(matches)}). {hint}")
    return matches


def _listed(folders: Iterable[Path]) -> str:
    names = [folder.name for folder in folders]
    more = ["..."] if len(names) > SHOWN_NAMES else []
    return ", ".join([*names[:SHOWN_NAMES], *more]) or "none"

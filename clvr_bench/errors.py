"""The errors that a user or a plugin author can cause; each carries one clear line. Anything else is a bug of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import chain
from pathlib import Path


class ClvrBenchError(Exception):
    """A mistake that a person can mend: what was wrong, where it came from, what is allowed, what to do next.

    The command line prints it as one line and exits with code 2.
    """


class PluginError(ClvrBenchError):
    """A plugin is broken, misdeclared or contested; the message names the plugin and its file."""


class CannotWrite(ClvrBenchError):  # noqa: N818 - it says what is wrong
    """A file cannot be written: the disk is full, or the folder is read-only. Everything written before is whole.

    Args:
        path: What should have been written.
        error: What the system said.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        self.reason = error.strerror or str(error)
        super().__init__(
            f"{path}: cannot be written ({self.reason}). What was finished is kept; make room or name another folder, "
            "and run the same command again."
        )


class DamagedFile(ClvrBenchError):  # noqa: N818 - it says what is wrong
    """A file is not what was written: cut off, edited, or of another kind; whoever goes on without it names it."""


class RunFailed(ClvrBenchError):  # noqa: N818 - it is an event of the sweep, caught and recorded
    """One combination failed while it ran (NaN, a raising plugin): a failed row, and the sweep goes on."""


def unknown(kind: str, name: str, available: Iterable[str], families: Mapping[str, Iterable[str]] | None = None) -> str:
    """Describe an unknown name with near matches and the choices.

    Args:
        kind: What the name should have been, such as ``"pretext task"``.
        name: The name that was asked for.
        available: The names that would have been accepted.
        families: Further accepted names by family, too many to list.

    Returns:
        One line: ``unknown pretext task 'simlcr'. Did you mean 'simclr'? Available: byol, simclr.``
    """
    listed = sorted(available)
    families = families or {}
    near = get_close_matches(name, [*listed, *chain(*families.values())], n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    choices = [*listed, *(f"any name of {family}" for family in families)]
    return f"unknown {kind} '{name}'.{hint} Available: {', '.join(choices) or 'none'}."

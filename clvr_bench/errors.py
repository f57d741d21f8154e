"""The errors that a user or a plugin author can cause; each carries one clear line. Anything else is a bug of ours."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ClvrBenchError(Exception):
    """A mistake that a person can mend: what was wrong, where it came from, what is allowed, what to do next.

    The command line prints it as one line and exits with code 2.
    """


class PluginError(ClvrBenchError):
    """A plugin is broken, misdeclared or contested; the message names the plugin and its file."""


class RunFailed(ClvrBenchError):
    """One combination failed while it ran (NaN, a raising plugin): a failed row, and the sweep goes on."""


def unknown(kind: str, name: str, available: Iterable[str], shown: int = 12) -> str:
    """Describe an unknown name with near matches and the choices.

    Args:
        kind: What the name should have been, such as ``"pretext task"``.
        name: The name that was asked for.
        available: Every name that would have been accepted.
        shown: How many of the accepted names are listed at most.

    Returns:
        One line: ``unknown pretext task 'simlcr'. Did you mean 'simclr'? Available: byol, simclr.``
    """
    choices = sorted(set(available))
    near = get_close_matches(name, choices, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(choices[:shown]) or "none"
    more = f" and {len(choices) - shown} more" if len(choices) > shown else ""
    return f"unknown {kind} '{name}'.{hint} Available: {listed}{more}."

"""Looks registered names up with the options that the command line gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clvr_bench.combinations import Choice, Override, expand
from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.options import resolve_options
from clvr_bench.registry import Entry, Kind, Registry


class Chooser:
    """Looks names up, and remembers which.

    Args:
        command: For messages, such as ``"preview"``.
        registry: What is registered.
        overrides: All ``--set`` of the command line.
    """

    def __init__(self, command: str, registry: Registry, overrides: Sequence[Override]) -> None:
        self.registry = registry
        self._command, self._overrides = command, overrides
        self._met: list[Entry] = []

    def entry(self, kind: Kind, name: str) -> Entry:
        """Look a name up.

        Raises:
            ClvrBenchError: It is unknown; near matches are named.
        """
        self._met.append(self.registry.get(kind, name, self._command))
        return self._met[-1]

    def given(self, entry: Entry) -> dict[str, Any]:
        """Return the options that the command line gave to an entry."""
        return {override.option: override.value for override in self._overrides if _meets(override, entry)}

    def choice(self, entry: Entry, defaults: Mapping[str, Any] | None = None) -> Choice:
        """Return an entry with all its options.

        Args:
            entry: What was looked up.
            defaults: Options in place of its own defaults.

        Raises:
            ClvrBenchError: An option is unknown or missing, or its value is not allowed.
        """
        options, where = {**(defaults or {}), **self.given(entry)}, f"{self._command}: {entry.kind} '{entry.name}'"
        return Choice(entry, resolve_options(entry.options, options, where))

    def choices(self, entry: Entry) -> list[Choice]:
        """Return an entry with its options, once for every combination of those that are lists of values.

        Raises:
            ClvrBenchError: An option is unknown or missing, or its value is not allowed.
        """
        return list(expand(entry, self.given(entry), f"{self._command}: {entry.kind} '{entry.name}'"))

    def require_all_met(self) -> None:
        """Refuse an option of something that was not looked up.

        Raises:
            ClvrBenchError: There is one.
        """
        for override in self._overrides:
            if not any(_meets(override, entry) for entry in self._met):
                names = {entry.name for entry in self._met if override.kind in (None, entry.kind)}
                raise ClvrBenchError(f"--set {override.text}: {unknown('name', override.name, names)}")


def _meets(override: Override, entry: Entry) -> bool:
    return override.name == entry.name and override.kind in (None, entry.kind)

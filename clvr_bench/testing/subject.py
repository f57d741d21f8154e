"""What is checked: a registered plugin, and what it is checked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clvr_bench.combinations import Choice
from clvr_bench.options import resolve_options
from clvr_bench.registry import Entry, Registry


@dataclass(frozen=True)
class Subject:
    """A registered plugin and what it is checked with.

    Attributes:
        entry: The plugin.
        registry: Where it finds what it names, such as a task its augmentation.
        options: On top of its defaults and, of a pretext task, its ``check_options``.
        data_root: Where a data set's files are.
    """

    entry: Entry
    registry: Registry
    options: Mapping[str, Any] = field(default_factory=dict)
    data_root: Path | None = None

    def choice(self) -> Choice:
        """Return the plugin with all of its options.

        Raises:
            ClvrBenchError: An option is unknown, or its value is not allowed.
        """
        options = resolve_options(self.entry.options, self.options, f"{self.entry.kind} '{self.entry.name}'")
        return Choice(self.entry, options)

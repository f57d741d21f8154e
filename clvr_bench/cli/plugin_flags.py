"""Which plugins a command loads, as the flags before it say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clvr_bench.plugins import Plugins

NAMES = ("--plugins-dir", "--plugin", "--no-plugin")


@dataclass(frozen=True)
class PluginFlags:
    """What was given.

    Attributes:
        directories: Folders of plugin files, or single files.
        blocked: Plugins to leave out.
        requested: Installed plugins that wait to be asked for.
    """

    directories: Sequence[Path] = ()
    blocked: Sequence[str] = ()
    requested: Sequence[str] = ()

    def load(self, *further: Path) -> Plugins:
        """Load those plugins, and those of further folders and files."""
        from clvr_bench.plugins import load_plugins  # brings torch along

        return load_plugins([*self.directories, *further], blocked=self.blocked, requested=self.requested)

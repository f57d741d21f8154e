"""Which plugins a command loads beside those that are installed, as its flags say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class PluginFlags(NamedTuple):
    """Flags before the command, in the order in which ``load_plugins`` takes them.

    Attributes:
        directories: Folders of plugin files, or single files.
        blocked: Plugins to leave out.
        requested: Installed plugins that wait to be asked for.
    """

    directories: Sequence[Path] = ()
    blocked: Sequence[str] = ()
    requested: Sequence[str] = ()

"""Loads plugins for a command that goes on without the broken ones."""

from __future__ import annotations

from rich.console import Console

from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.plugins import Plugins


def load_with_warnings(chosen: PluginFlags, errors: Console) -> Plugins:
    """Load plugins and name those that did not load.

    Args:
        chosen: Plugins directories, and plugins to leave out.
        errors: Where warnings go.
    """
    plugins = chosen.load()
    for plugin in plugins.broken:
        errors.print(f"warning: plugin '{plugin.name}' did not load: {plugin.reason}", markup=False, soft_wrap=True)
    return plugins

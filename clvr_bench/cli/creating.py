"""``clvr-bench new``: writes a plugin that runs as it is, and says what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.scaffold import Draft, refuse_folder, refuse_importable, refuse_taken, write


def create_plugin(kind: str, name: str, folder: Path, *, package: bool, plugins: PluginFlags) -> None:
    """Write a plugin and print the commands that try it.

    Args:
        kind: As the command takes it, such as ``"pretext-task"``.
        name: Of the plugin.
        folder: Where to.
        package: Whether as an installable package.
        plugins: Plugins directories, and plugins to leave out.
    """
    draft = Draft(kind.replace("-", " "), name)
    if package:
        refuse_importable(draft)
    else:
        refuse_folder(folder)
    refuse_taken(draft, plugins.load())  # the last, for it brings torch along, which a misspelt name need not wait for
    console = Console()
    for path in write(draft, folder, package=package):
        _print(console, f"Written: {path}")
    _print(console, "It runs as it is; '# Edit:' marks what to change. Next:")
    for command in next_commands(draft, folder, package=package):
        _print(console, f"  {command}")


def next_commands(draft: Draft, folder: Path, *, package: bool) -> list[str]:
    """Return the commands that check, list and run a new plugin."""
    if package:
        return [
            f"cd {shlex.quote(str(folder / draft.distribution))}",
            "python -m pip install --editable '.[test]'",
            f"clvr-bench check {draft.name}",
            f"clvr-bench list {draft.plural}",
            f"clvr-bench run {draft.name}.toml",
            "python -m pytest",
        ]
    plugin, suite = (shlex.quote(str(folder / f"{draft.name}{suffix}")) for suffix in (".py", ".toml"))
    return [
        f"clvr-bench check {plugin}",
        f"clvr-bench --plugins-dir {plugin} list {draft.plural}",
        f"clvr-bench --plugins-dir {plugin} run {suite}",
    ]


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)

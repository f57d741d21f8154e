"""``clvr-bench plugins`` and ``clvr-bench list``: what there is, where it comes from, and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.suites import built_in_suites, load_suite

if TYPE_CHECKING:
    from clvr_bench.registry import Entry, Family


def list_plugins(chosen: PluginFlags) -> int:
    """Print a table of all plugins; the exit code is 1 where one is broken."""
    plugins, console = chosen.load(), Console()
    table = Table("plugin", "distribution", "version", "registers", "state", box=None, pad_edge=False)
    for plugin in plugins.found:
        registered = "\n".join(f"{item.kind} {_name(item)}" for item in plugin.registered) or "-"
        style = {"loaded": "green", "waiting": "dim", "blocked": "yellow", "broken": "red"}[plugin.state]
        table.add_row(plugin.name, plugin.distribution, plugin.version, registered, Text(plugin.state, style))
    console.print(table)
    if any(plugin.state == "waiting" for plugin in plugins.found):
        console.print(
            "waiting: loaded where it is asked for, such as: clvr-bench --plugin NAME run SUITE", highlight=False
        )
    for plugin in plugins.broken:
        console.print(f"broken: {plugin.name}: {plugin.reason}", markup=False, highlight=False, soft_wrap=True)
    return 1 if plugins.broken else 0


def _name(item: Entry | Family) -> str:
    return f"family {item.name}" if hasattr(item, "names") else item.name


def list_kind(listed: str, chosen: PluginFlags) -> None:
    """Print what is registered of a kind."""
    console = Console()
    from clvr_bench.registry import Kind

    registry = chosen.load().registry
    kind = next(kind for kind in Kind if kind.plural == listed.replace("-", "_"))
    for entry in registry.entries(kind):
        _print_entry(console, entry)
    for family in registry.families(kind):
        names = family.names()
        console.print(Text(f"{len(names)} names of {family.name}", "bold"), Text(f"(such as {names[0]}, {names[-1]})"))
        _print_about(console, family)
        _print_options(console, family.member(names[0]))


def _print_entry(console: Console, entry: Entry) -> None:
    console.print(Text(entry.name, "bold"), Text(f"(version {entry.version}, plugin {entry.plugin})", "dim"))
    _print_about(console, entry)
    _print_options(console, entry)


def _print_about(console: Console, item: Entry | Family) -> None:
    console.print(f"  {item.summary}", markup=False, highlight=False)
    console.print(f"  Source: {item.source}", markup=False, highlight=False)


def _print_options(console: Console, entry: Entry) -> None:
    for option in entry.options.values():
        console.print(f"    {option}", markup=False, highlight=False)


def list_suites() -> None:
    """Print the built-in suites."""
    console = Console()
    for name in built_in_suites():
        suite = load_suite(name)
        tasks = ", ".join(item if isinstance(item, str) else item["name"] for item in suite.pretext_tasks)
        console.print(Text(name, "bold"))
        console.print(f"  {suite.summary}", markup=False, highlight=False)
        console.print(f"  Pretext tasks: {tasks}", markup=False, highlight=False)
        console.print(
            f"  {suite.budget.epochs} epochs, batch size {suite.budget.batch_size}, seeds {suite.seeds}",
            markup=False,
            highlight=False,
        )

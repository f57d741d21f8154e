"""``clvr-bench check``: whether a plugin keeps the contract, and what to change where it does not."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.combinations import Override
from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Entry, Kind
from clvr_bench.testing import Check, Finding, Subject, checks_of

FAILED = 1
_STYLES = {"holds": "green", "fails": "red", "not applicable": "dim"}


def check_plugins(
    subject: str,
    kind: str | None,
    overrides: list[str],
    data_root: Path | None,
    chosen: PluginFlags,
) -> int:
    """Check a registered name, or all that a file registers, and print a table for each; 1 where something fails.

    Raises:
        ClvrBenchError: There is no such name or file, the file's plugin is broken, or an option is wrong.
    """
    plugins, entries = _find(subject, kind, chosen)
    parsed = [Override.parse(text) for text in overrides]
    _require_met(parsed, entries)
    failures = 0
    for entry in entries:
        options = {o.option: o.value for o in parsed if o.name == entry.name and o.kind in (None, entry.kind)}
        failures += _check_one(entry, checks_of(Subject(entry, plugins.registry, options, data_root)))
    return FAILED if failures else 0


def _find(subject: str, kind: str | None, chosen: PluginFlags) -> tuple[Plugins, list[Entry]]:
    path = Path(subject)
    is_file = path.suffix == ".py" or path.is_dir()
    plugins = chosen.load(path) if is_file else chosen.load()
    if is_file:
        return plugins, [entry for entry in _registered_by(path, plugins) if kind in (None, _flag(entry.kind))]
    return plugins, _named(subject, kind, plugins)


def _registered_by(path: Path, plugins: Plugins) -> list[Entry]:
    """Return what a file, or the files of a folder, registered."""
    path = path.expanduser().resolve()
    folder = path if path.is_dir() else path.parent
    own = [p for p in plugins.found if p.distribution == str(folder) and (path.is_dir() or p.name == path.stem)]
    for plugin in own:
        if plugin.state == "broken":
            raise ClvrBenchError(f"{path}: the plugin '{plugin.name}' did not load: {plugin.reason}")
    entries = [item for plugin in own for item in plugin.registered if isinstance(item, Entry)]
    if not entries:
        raise ClvrBenchError(f"{path}: it registers nothing to check.")
    return entries


def _named(name: str, kind: str | None, plugins: Plugins) -> list[Entry]:
    """Return every kind of plugin that has this name."""
    found, names = [], set()
    for one in Kind:
        if kind not in (None, _flag(one)):
            continue
        names |= {entry.name for entry in plugins.registry.entries(one)}
        try:
            found.append(plugins.registry.get(one, name))
        except ClvrBenchError:
            continue
    if not found:
        raise ClvrBenchError(f"check: {unknown('name', name, names)} Or name a plugin's file (*.py).")
    return found


def _flag(kind: Kind) -> str:
    return kind.value.replace(" ", "-")


def _require_met(overrides: list[Override], entries: list[Entry]) -> None:
    for override in overrides:
        if not any(override.name == entry.name for entry in entries):
            names = ", ".join(sorted({entry.name for entry in entries}))
            raise ClvrBenchError(f"--set {override.text}: '{override.name}' is not what is checked: {names}.")


def _check_one(entry: Entry, checks: list[Check]) -> int:
    """Print the findings of one plugin and return how many rules fail."""
    console, started = Console(), time.perf_counter()
    title = f"{entry.kind} '{entry.name}' (version {entry.version}, plugin {entry.plugin})"
    findings = []
    with console.status(title) as status:
        for check in checks:
            status.update(f"{title}: {check.rule.title}")
            findings.append(check.finding())
    console.print(Text(title, "bold"))
    console.print(_table(findings))
    counts = {state: sum(finding.state == state for finding in findings) for state in _STYLES}
    summary = f"{counts['holds']} hold, {counts['fails']} fail, {counts['not applicable']} do not apply"
    console.print(f"{summary} ({time.perf_counter() - started:.1f} s).\n", highlight=False)
    return counts["fails"]


def _table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        shown = Text(finding.title)
        if finding.state == "not applicable":
            shown.append(f" ({finding.detail.rstrip('.')})", "dim")
        elif finding.detail:
            shown.append(f"\nfound: {finding.detail}")
        if finding.advice:
            shown.append(f"\nmend:  {finding.advice}", "bold")
        state = "-" if finding.state == "not applicable" else finding.state
        table.add_row(Text(state, _STYLES[finding.state]), shown)
    return table

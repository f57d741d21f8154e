"""``clvr-bench run --dry-run``: every combination, how far it is, and what it will cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from clvr_bench.errors import RunFailed
from clvr_bench.estimates import Estimate, estimate
from clvr_bench.planning import Planned
from clvr_bench.sweep import Sweep


def show_plan(sweep: Sweep, console: Console) -> None:
    """Print the combinations with measured estimates; those that differ only in their seed are measured once."""
    table = Table("combination", "state", "time", "memory MB", "disk MB", box=None, pad_edge=False)
    measured: dict[str, Estimate | str] = {}
    total = disk = 0.0
    for planned in sweep.planned:
        cost = _cost(planned, sweep, measured)
        if isinstance(cost, str):
            table.add_row(str(planned.combination), planned.standing, cost)
            continue
        total += cost.seconds
        disk += cost.disk_mb
        numbers = (duration(cost.seconds), f"{cost.memory_mb:.0f}", f"{cost.disk_mb:.0f}")
        table.add_row(str(planned.combination), planned.standing, *numbers)
    console.print(table)
    for planned in sweep.planned:
        if planned.skip:
            console.print(f"skipped: {planned.combination}: {planned.skip}", markup=False, highlight=False)
    console.print(
        f"Combinations: {len(sweep.planned)}, on {sweep.device} in {sweep.precision}: about {duration(total)} and "
        f"{disk:.0f} MB to go, as if none had begun. Measured on a few steps; probes come on top.",
        highlight=False,
    )


def _cost(planned: Planned, sweep: Sweep, measured: dict[str, Estimate | str]) -> Estimate | str:
    if planned.standing in ("done", "skipped"):
        return "-"
    combination = planned.combination
    key = f"{combination.task}{combination.encoder}{combination.augmentation}{combination.dataset}"
    if key not in measured:
        try:
            measured[key] = estimate(planned, sweep)
        except RunFailed as failure:
            measured[key] = f"will fail: {failure}"
    return measured[key]


def duration(seconds: float) -> str:
    """Return a duration in words."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )

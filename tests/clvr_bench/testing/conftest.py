from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clvr_bench.plugins import Plugins
from clvr_bench.registry import Entry, Kind
from clvr_bench.testing import Finding, Subject, checks_of


@pytest.fixture
def findings(plugins: Plugins) -> Callable[..., dict[str, Finding]]:
    """Check a factory as if it were registered; the findings by title."""

    def check(
        kind: Kind, factory: Any, only: str | None = None, data_root: Path | None = None, **options: Any
    ) -> dict[str, Finding]:
        entry = Entry(kind, "subject", factory, summary="", source="none", version="1", plugin="test")
        checks = checks_of(Subject(entry, plugins.registry.extended(entry), options, data_root))
        chosen = [check for check in checks if only in (None, check.rule.title)]
        return {check.rule.title: check.finding() for check in chosen}

    return check


def failing(findings: dict[str, Finding]) -> dict[str, str]:
    """Return what fails, with what was found."""
    return {title: finding.detail for title, finding in findings.items() if finding.state == "fails"}

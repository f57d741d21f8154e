"""Imports all that a sweep needs, and computes nothing, so that processes can be forked from one that did."""

from __future__ import annotations

import clvr_bench.cli.running
import clvr_bench.cli.tables
import clvr_bench.standings
import clvr_bench.tables
from clvr_bench.plugins import load_plugins

__all__ = ["clvr_bench"]
load_plugins([])

"""clvr-bench's contract, one test a rule. Needs the package installed: python -m pip install --editable '.[test]'."""

from __future__ import annotations

import pytest

from clvr_bench.testing import Check, conformance


@pytest.mark.parametrize("check", conformance("plugin_kind", "plugin_name"), ids=str)
def test_it_keeps_the_contract(check: Check) -> None:
    """A rule holds, or says why it does not apply."""
    check()

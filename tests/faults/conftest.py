from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweeps import Child, numbers


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the sweep gives when nothing happens to it."""
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    child = Child(folder)
    assert child.run() == 0, child.output
    return numbers(folder)

"""Fixtures that every test may use: small plugins, a small suite, the command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from clvr_bench.plugins import Plugins, load_plugins

torch.set_num_threads(1)  # equal to the bit means equal threads; and small tensors gain nothing from more
CONTRACT_PLUGINS = Path(__file__).parent / "fixtures" / "contract_plugins"
TINY = [
    "--encoder", "tiny", "--dataset", "shapes", "--set", "shapes.train_size=120", "--set", "shapes.test_size=60",
    "--set", "shapes.image_size=16", "--batch-size", "20", "--device", "cpu",
]  # fmt: skip
"""Flags of a run that takes well under a second."""


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return load_plugins([CONTRACT_PLUGINS])


@pytest.fixture(autouse=True)
def _one_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    monkeypatch.delenv("CLVR_BENCH_PLUGINS_DIR", raising=False)
    monkeypatch.setenv("CLVR_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Answer]:
    """Run ``clvr-bench`` in this process, in an empty folder."""
    from clvr_bench.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["clvr-bench", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def tiny_run(cli: Callable[..., Answer]) -> Callable[..., Answer]:
    """Run ``clvr-bench run`` with the contract's plugins on a small set."""

    def run(*arguments: object) -> Answer:
        return cli("--plugins-dir", CONTRACT_PLUGINS, "run", *TINY, *arguments)

    return run

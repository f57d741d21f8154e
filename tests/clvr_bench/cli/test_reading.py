from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from clvr_bench import run
from clvr_bench.cli import reading as module
from clvr_bench.cli.reading import ReadingFlags, parse_bytes, reading
from clvr_bench.errors import ClvrBenchError
from clvr_bench.records import Run, load_runs
from clvr_bench.suites import parse_suite
from clvr_bench.sweep import Listener
from tests.conftest import CONTRACT_PLUGINS, Answer

Cli = Callable[..., Answer]
TINY = [
    "--pretext-task", "simclr", "--encoder", "tiny", "--dataset", "folder", "--set", "folder.image_size=12",
    "--batch-size", 6, "--epochs", 2, "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty training pictures and six test pictures of two classes, of which one test picture is also in train."""
    folder = tmp_path / "pets"
    for split, count in (("train", 20), ("test", 6)):
        for number in range(count):
            path = folder / split / ("cat", "dog")[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = number if split == "train" or number == 3 else 100 + number
            pixels = np.random.default_rng(seed).integers(256, size=(18, 16 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def run_pets(cli: Cli, root: Path) -> Callable[..., Run]:
    def go(*flags: object) -> Run:
        answer = cli("--plugins-dir", CONTRACT_PLUGINS, "run", *TINY, "--data-root", root, "--workers", 0, *flags)
        assert answer.code == 0, answer.err
        assert "dataset folder: 1 of 6 test pictures are also in train" in answer.err
        assert ("decoded as they are needed" in answer.err) == ("--memory-limit" in flags)
        results = flags[flags.index("--results") + 1] if "--results" in flags else "results"
        (found,) = load_runs(Path(str(results)))
        return found

    return go


def test_streamed_and_cached_runs_end_alike_to_the_bit(run_pets: Callable[..., Run], tmp_path: Path) -> None:
    cached = run_pets("--cache", tmp_path / "cache")
    streamed = run_pets("--cache", tmp_path / "other", "--memory-limit", "1K", "--results", "streamed")
    assert cached.pretraining.id == streamed.pretraining.id
    weights = [(found.folder / "weights.safetensors").read_bytes() for found in (cached, streamed)]
    assert weights[0] == weights[1]
    assert cached.evaluations[0].metrics == streamed.evaluations[0].metrics
    assert list((tmp_path / "cache" / "pictures").glob("*/pixels.bin"))
    assert not (tmp_path / "other" / "pictures").exists()


def test_what_to_know_of_the_data_is_in_the_record_but_not_in_its_identity(run_pets: Callable[..., Run]) -> None:
    record = run_pets().pretraining
    assert record.facts["data_notes"] == ["1 of 6 test pictures are also in train"]
    assert "also in train" not in str(record.identity)


def test_clean_data_leave_no_note(tiny_run: Cli) -> None:
    answer = tiny_run("--pretext-task", "simclr", "--epochs", 1)
    assert answer.code == 0, answer.err
    (found,) = load_runs(Path("results"))
    assert "data_notes" not in found.pretraining.facts


def test_python_takes_the_same_and_tells_its_listener(root: Path, tmp_path: Path) -> None:
    class Hearing(Listener):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warned(self, message: str) -> None:
            self.warnings.append(message)

    suite = {
        "name": "pets",
        "pretext_tasks": ["raw_pixels"],
        "encoders": ["tiny"],
        "datasets": [{"name": "folder", "image_size": 12}],
        "evaluations": ["linear"],
        "budget": {"epochs": 1, "batch_size": 6},
    }
    hearing, cache = Hearing(), tmp_path / "cache"
    frame = run(
        parse_suite(suite, "test"), results=tmp_path / "results", device="cpu", data_root=root, cache=cache, workers=0,
        memory_limit=0, plugins_dirs=[CONTRACT_PLUGINS], listener=hearing,
    )  # fmt: skip
    assert frame["status"].tolist() == ["done"]
    assert len(hearing.warnings) == 2
    assert (cache / "catalogue.sqlite").is_file()


def test_a_data_root_is_needed_to_download(cli: Cli) -> None:
    answer = cli("run", "--pretext-task", "simclr", "--dataset", "folder", "--download")
    assert answer.code == 2
    assert answer.err == (
        "clvr-bench: --download: name the folder that folder is downloaded into, with --data-root DIR.\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500M", 500_000_000), ("8G", 8 * 10**9), ("1.5g", 1_500_000_000), ("20KB", 20_000), ("0", 0), ("2T", 2 * 10**12)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "8X", "-1G", "G", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(
        ClvrBenchError, match=rf"^--memory-limit {text}: expected a number of bytes, such as 8G or 500M\.$"
    ):
        parse_bytes(text)


def test_flags_become_access(tmp_path: Path) -> None:
    flags = ReadingFlags(tmp_path, True, "1M", tmp_path / "cache", 3)
    with reading(flags, Console(file=StringIO())) as access:
        found = (access.root, access.download, access.memory_limit, access.cache, access.workers)
    assert found == (tmp_path, True, 1_000_000, tmp_path / "cache", 3)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(module, "LOG_SECONDS", seconds)
    log = StringIO()
    with reading(ReadingFlags(), Console(file=log, width=80)) as access:
        access.progress(1000, 60000, "files read")
        access.report("a line [with] marks")
    assert log.getvalue() == ("files read: 1,000 of 60,000\n" if seconds == 0 else "") + "a line [with] marks\n"


def test_a_terminal_gets_a_bar() -> None:
    screen = StringIO()
    with reading(ReadingFlags(), Console(file=screen, width=80, force_terminal=True)) as access:
        access.progress(1000, 60000, "files read")
        access.report("a line that stays")
    assert "files read" in screen.getvalue()
    assert "1000/60000" in screen.getvalue()
    assert "a line that stays" in screen.getvalue()

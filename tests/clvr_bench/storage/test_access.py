from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clvr_bench.data import Access
from clvr_bench.errors import ClvrBenchError
from clvr_bench.storage import access as module
from clvr_bench.storage.access import default_cache, memory_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("CLVR_BENCH_CACHE", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"
    monkeypatch.delenv("CLVR_BENCH_CACHE")
    assert default_cache() == tmp_path / "xdg" / "clvr-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == tmp_path / "home" / ".cache" / "clvr-bench"


def test_a_named_cache_comes_first(tmp_path: Path) -> None:
    assert Access(cache=tmp_path / "named").cache_folder() == tmp_path / "named"
    assert (tmp_path / "named").is_dir()
    assert not list((tmp_path / "named").iterdir())


def test_the_limit_is_half_of_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_CGROUP_LIMIT", tmp_path / "memory.max")
    machine = memory_of(CPU)
    assert 1 << 28 < machine < 1 << 50
    assert Access().limit_on(CPU) == machine // 2
    for content, expected in (("1000000\n", 1_000_000), ("max\n", machine), (f"{1 << 60}\n", machine)):
        (tmp_path / "memory.max").write_text(content)
        assert memory_of(CPU) == expected


def test_the_limit_on_a_gpu_is_half_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(total_memory=80_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert Access().limit_on(CUDA) == 40_000
    assert Access(memory_limit=7).limit_on(CUDA) == 7


def test_there_is_a_worker_a_core_unless_it_is_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 3)
    assert (Access().worker_count, Access(workers=0).worker_count, Access(workers=7).worker_count) == (3, 0, 7)
    monkeypatch.setattr(module, "cores", lambda: 500)
    assert Access().worker_count == module.MOST_WORKERS


@pytest.mark.parametrize(("option", "flag"), [("workers", "--workers"), ("memory_limit", "--memory-limit")])
def test_negative_numbers_are_refused(option: str, flag: str) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^{flag} -1: it cannot be negative\.$"):
        Access(**{option: -1})

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clvr_bench.errors import RunFailed
from clvr_bench.storage.tasks import Stamp, Wanted, decode_files
from clvr_bench.storage.workers import Workers

SUICIDE = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.close()


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def ends(process: int) -> bool:
    deadline = time.monotonic() + 10
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(process)


def test_jobs_run_in_another_process_without_torch(workers: Workers) -> None:
    assert workers.submit(os.getpid).result() != os.getpid()
    loaded = "sorted({'torch', 'timm', 'pandas', 'matplotlib'} & set(__import__('sys').modules))"
    assert workers.submit(eval, f"__import__('clvr_bench.storage.tasks') and {loaded}").result() == []


def test_results_come_in_the_order_of_the_tasks() -> None:
    workers = Workers(2)
    tasks = [(f"__import__('time').sleep({0.05 * (number == 0)}) or {number}",) for number in range(20)]
    assert list(workers.map(eval, tasks)) == list(range(20))
    workers.close()


def test_without_workers_everything_is_done_here() -> None:
    assert set(Workers(0).map(os.getpid, [(), ()])) == {os.getpid()}


def test_a_single_task_is_done_here_too(workers: Workers) -> None:
    assert list(workers.map(os.getpid, [()])) == [os.getpid()]


def test_what_follows_a_job_is_done_in_this_process(workers: Workers) -> None:
    assert workers.submit(os.getppid, then=lambda parent: (parent, os.getpid())).result() == (os.getpid(),) * 2


def test_a_killed_worker_is_replaced_and_its_job_done_again(workers: Workers) -> None:
    process = workers.submit(os.getpid).result()
    job = workers.submit(eval, "__import__('time').sleep(0.3) or __import__('os').getpid()")
    os.kill(process, signal.SIGKILL)
    assert job.result() != process


def test_a_job_that_kills_every_worker_is_given_up(workers: Workers) -> None:
    with pytest.raises(
        RunFailed, match=r"^reading pictures: 3 worker processes died of the same job, the last with sig"
    ):
        workers.submit(eval, SUICIDE).result()
    assert workers.submit(divmod, 7, 2).result() == (3, 1)


def test_a_mistake_in_a_worker_is_the_same_line_here(workers: Workers) -> None:
    gone = Wanted("/nowhere.png", Stamp(1, 1, 1), b"", 1, 1)
    with pytest.raises(RunFailed, match=r"^/nowhere.png: the data changed while they were in use: it is gone\.$"):
        workers.submit(decode_files, [gone], 0).result()


def test_a_bug_in_a_worker_comes_with_its_traceback(workers: Workers) -> None:
    with pytest.raises(RuntimeError, match=r"in a worker process: Traceback[\s\S]*ZeroDivisionError"):
        workers.submit(divmod, 1, 0).result()


def test_closing_ends_the_processes_and_drops_what_waits(workers: Workers) -> None:
    process = workers.submit(os.getpid).result()
    workers.submit(time.sleep, 60)
    waiting = workers.submit(os.getpid)
    workers.close()
    assert ends(process)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        workers.submit(os.getpid)


def test_workers_that_nobody_holds_any_more_end() -> None:
    workers = Workers(1)
    process = workers.submit(os.getpid).result()
    del workers
    assert ends(process)


SCRIPT = """
import os, sys
from clvr_bench.storage.workers import Workers
workers = Workers(1)
print(workers.submit(os.getpid).result(), flush=True)
sys.stdin.read()
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        assert is_alive(process)
        parent.kill()
    assert ends(process)


def test_a_script_needs_no_guard_around_its_main_part(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], input="", capture_output=True, text=True, check=True
    )
    assert len(done.stdout.split()) == 1
    assert done.stderr == ""

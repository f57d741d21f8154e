"""Processes that read and decode: plain programs without torch, fed through pipes. One that is killed is replaced.

They are started as programs, not by ``multiprocessing``, which would import the caller's main module into each of them.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import IO, Any, cast

from clvr_bench.errors import ClvrBenchError, RunFailed

TRIES = 3  # a job that kills its worker this often is given up
WINDOW = 3  # jobs a worker that are under way or waiting, so that none is idle and results do not pile up

_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from clvr_bench.storage.workers import serve; serve()"
)
_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], Callable[[Any], Any] | None]
_Jobs = queue.SimpleQueue[_Job | None]


class Workers:
    """A number of worker processes, started when there is something to do.

    Args:
        count: How many; with 0 everything is done in this process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._jobs: _Jobs = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self._close = weakref.finalize(self, _close, self._jobs, self._processes)

    def submit(
        self, function: Callable[..., Any], *arguments: Any, then: Callable[[Any], Any] | None = None
    ) -> Future[Any]:
        """Call a function in a worker.

        Args:
            function: Of a module that imports no torch.
            arguments: Its arguments; they and what it returns are pickled.
            then: Gets what it returned, in a thread of this process; what it returns is the result.

        Returns:
            The result; ``RunFailed`` if it raised a ``ClvrBenchError``, or kills its workers.
        """
        if not self._close.alive:
            raise RuntimeError("these workers are closed")
        if not self._processes:
            self._start()
        future: Future[Any] = Future()
        self._jobs.put((future, function, arguments, then))
        return future

    def map(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the results of a function for the arguments of each task, in order; a single task is done here."""
        if not self.count or len(tasks) == 1:
            yield from (function(*task) for task in tasks)
            return
        waiting = deque(tasks)
        under_way: deque[Future[Any]] = deque()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < WINDOW * self.count:
                    under_way.append(self.submit(function, *waiting.popleft()))
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def close(self) -> None:
        """End the processes; what is under way is dropped."""
        self._close()

    def _start(self) -> None:
        self._processes += [_Process() for _ in range(self.count)]
        for process in self._processes:
            threading.Thread(target=_work, args=(self._jobs, process), name="worker", daemon=True).start()


class _Died(Exception):  # noqa: N818 - it is an event
    """A worker process is gone; the message says how it ended."""


class _Process:
    """One worker process, from the first call on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._running: _Running | None = None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Return what a function returns in the process.

        Raises:
            RunFailed: It raised a ``ClvrBenchError``.
            _Died: The process is gone.
        """
        running = self._started()
        try:
            pickle.dump((function, arguments), running.requests, pickle.HIGHEST_PROTOCOL)
            running.requests.flush()
            state, answer = pickle.load(running.answers)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise _Died(self._ended()) from None
        if state == "mistake":
            raise RunFailed(answer)
        if state == "error":
            raise RuntimeError(f"in a worker process: {answer}")
        return answer

    def close(self) -> None:
        """End the process, and start no other."""
        with self._lock:
            self._closed = True
            if self._running:
                self._running.end()

    def _started(self) -> _Running:
        with self._lock:
            if self._closed:
                raise RuntimeError("these workers are closed")
            self._running = self._running or _Running()
            return self._running

    def _ended(self) -> str:
        with self._lock:
            code = self._running.end() if self._running else 0
            self._running = None
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Running:
    """A started process and the pipes to it."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _PROGRAM]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.requests, self.answers = (cast(IO[bytes], pipe) for pipe in (self._process.stdin, self._process.stdout))
        pickle.dump(sys.path, self.requests)

    def end(self) -> int:
        """End it, and return its exit code."""
        self._process.kill()
        for pipe in (self.requests, self.answers):
            with suppress(OSError):  # from what was still to be written
                pipe.close()
        return self._process.wait()


def _work(jobs: _Jobs, process: _Process) -> None:
    """Do jobs in a process, as the thread that waits for it."""
    while (job := jobs.get()) is not None:
        future, function, arguments, then = job
        if future.set_running_or_notify_cancel():
            try:
                result = _persistently(process, function, arguments)
                future.set_result(result if then is None else then(result))
            except BaseException as error:
                future.set_exception(error)
        del job, future, function, arguments, then  # nothing outlives its job while the thread waits for the next
        result = None


def _persistently(process: _Process, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    for tried in range(1, TRIES + 1):
        try:
            return process.call(function, arguments)
        except _Died as death:
            if tried == TRIES:
                raise RunFailed(
                    f"reading pictures: {TRIES} worker processes died of the same job, the last with {death}. "
                    "If memory is short, use fewer (--workers N), or a lower --memory-limit."
                ) from None
    raise AssertionError("unreachable")


def _close(jobs: _Jobs, processes: list[_Process]) -> None:
    while not jobs.empty():
        job = jobs.get()
        if job is not None:
            job[0].cancel()
    for process in processes:
        jobs.put(None)
        process.close()


def serve() -> None:
    """Answer requests until there are no more; the main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # decoders in C print their warnings
        os.dup2(nowhere, stream)
    try:
        while True:
            function, arguments = pickle.load(requests)
            pickle.dump(_answer(function, arguments), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError):  # the parent is gone, or needs no more
        os._exit(0)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", function(*arguments)
    except ClvrBenchError as error:
        return "mistake", str(error)
    except Exception:
        return "error", traceback.format_exc()

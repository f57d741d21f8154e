"""SIGTERM and Ctrl-C: a request where a run can save itself first, an exception everywhere else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Somebody asked the process to end.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


class Interruption:
    """Handles the signals as long as its context lasts; outside the main thread it leaves them as they are.

    Contexts may be nested.

    Attributes:
        requested: The signal that came in the last context; None where none did.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._deferring = False
        self._depth = 0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self._depth == 0:
            self.requested = None
            if threading.current_thread() is threading.main_thread():
                self._handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._handlers = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note the first signal while something is under way that will look at ``requested`` soon.

        Raises:
            Interrupted: At the end, if one came; at once, if a second one does.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.requested is not None:
            raise Interrupted(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second = self.requested is not None
        self.requested = number
        if is_second or not self._deferring:
            raise Interrupted(number)


interruption = Interruption()
"""The process's own; signals are the process's too."""

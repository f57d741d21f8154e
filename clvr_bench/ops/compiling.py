"""Operations compiled where that is asked for: fewer passes over the pixels, after some seconds of compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

from clvr_bench.errors import ClvrBenchError

P = ParamSpec("P")
R = TypeVar("R")

_compiled: ContextVar[bool] = ContextVar("compiled", default=False)


@contextmanager
def compiled_operations() -> Iterator[None]:
    """Compile operations within this context, each when it is first used: about ten seconds a kind and size of picture.

    Results differ by float32 rounding. What is compiled: the color jitter, and crops (on a CPU: of views below 64 px).

    Raises:
        ClvrBenchError: torch cannot compile here.
    """
    try:
        torch.compile(lambda x: x.sin() + x)(torch.ones(2))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ClvrBenchError(
            f"torch.compile does not work here ({reason}). Go without it, or install a C++ compiler such as g++."
        ) from error
    token = _compiled.set(True)
    try:
        yield
    finally:
        _compiled.reset(token)


def compiling() -> bool:
    """Whether operations are compiled at present."""
    return _compiled.get()


def compilable(operation: Callable[P, R]) -> Callable[P, R]:
    """Make an operation one that is compiled within ``compiled_operations``, and runs as it is elsewhere.

    Args:
        operation: Of tensors, without branches on their values.
    """

    @cache
    def compiled(by: Callable[[Callable[P, R]], Callable[P, R]]) -> Callable[P, R]:
        return by(operation)

    @wraps(operation)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        return (compiled(torch.compile) if compiling() else operation)(*args, **kwargs)

    return chosen

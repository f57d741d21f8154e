from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from clvr_bench.interruption import Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_exception(number: signal.Signals) -> None:
    with Interruption() as interruption, pytest.raises(Interrupted, match=number.name):
        signal.raise_signal(number)
    assert interruption.requested == number


def deferred(interruption: Interruption, *signals: signal.Signals, error: Exception | None = None) -> Iterator[int]:
    """Work in two steps while signals come; yields what is noted after each."""
    with interruption, interruption.deferred():
        for number in signals:
            signal.raise_signal(number)
            yield interruption.requested or 0
        if error:
            raise error


def test_a_deferred_signal_waits_until_what_is_under_way_has_ended() -> None:
    work = deferred(Interruption(), signal.SIGTERM)
    assert next(work) == signal.SIGTERM
    with pytest.raises(Interrupted):
        next(work)


def test_a_second_signal_does_not_wait() -> None:
    work = deferred(Interruption(), signal.SIGINT, signal.SIGINT, signal.SIGINT)
    assert next(work) == signal.SIGINT
    with pytest.raises(Interrupted):
        next(work)


def test_an_error_under_way_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ValueError, match="first"):
        list(deferred(Interruption(), signal.SIGINT, error=ValueError("first")))


def test_without_a_signal_nothing_is_raised() -> None:
    with Interruption() as interruption, interruption.deferred():
        pass
    assert interruption.requested is None


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_nested_contexts_share_their_signal() -> None:
    interruption = Interruption()
    with interruption:
        with pytest.raises(Interrupted), interruption:
            signal.raise_signal(signal.SIGTERM)
        assert interruption.requested == signal.SIGTERM
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_a_new_context_forgets_the_signal_of_the_last() -> None:
    interruption = Interruption()
    with pytest.raises(Interrupted), interruption:
        signal.raise_signal(signal.SIGTERM)
    with interruption:
        assert interruption.requested is None

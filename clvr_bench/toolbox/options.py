"""What a task says of an option that it cannot take."""

from __future__ import annotations

from clvr_bench.errors import ClvrBenchError


def require(task: str, holds: bool, rule: str, value: object, hint: str = "") -> None:
    """Refuse an option, in one line, unless a rule holds.

    Args:
        task: The registered name.
        holds: Whether the rule does.
        rule: What is allowed, such as ``"temperature must be positive"``.
        value: What was given.
        hint: What to do next, or what is usual, such as ``"Typical: 0.1."``.

    Raises:
        ClvrBenchError: It does not hold.
    """
    if not holds:
        raise ClvrBenchError(f"{task}: {rule}, got {value}.{f' {hint}' if hint else ''}")

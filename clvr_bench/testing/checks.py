"""What a check is: a rule put to one plugin. It holds, it fails, or it does not apply."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from clvr_bench.errors import ClvrBenchError


class NotApplicable(unittest.SkipTest):
    """A rule says nothing about this plugin; the message says why. Test runners count it as skipped."""


class Violation(AssertionError):  # noqa: N818 - what was violated is in its name
    """A rule does not hold; the message says what was found."""


@dataclass(frozen=True)
class Rule:
    """Something that holds for every plugin of a kind.

    Attributes:
        title: What holds, as a sentence.
        advice: What to change where it does not.
        test: Takes the plugin's trial; raises ``Violation`` or ``NotApplicable``.
    """

    title: str
    advice: str
    test: Callable[[Any], None]


def rule(title: str, advice: str) -> Callable[[Callable[[Any], None]], Rule]:
    """Make a rule of a function that tests it."""
    return lambda test: Rule(title, advice, test)


@dataclass(frozen=True)
class Finding:
    """What came of a check.

    Attributes:
        title: What should hold.
        state: Whether it does.
        detail: What was found, or why the rule does not apply; empty where it holds.
        advice: What to change; empty unless it fails.
    """

    title: str
    state: Literal["holds", "fails", "not applicable"]
    detail: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A rule and the plugin that it is put to. Call it in a test: it raises where the rule does not hold.

    Attributes:
        rule: What should hold.
        trial: The plugin, ready to be tried.
    """

    rule: Rule
    trial: Any

    def __call__(self) -> None:
        """Put the rule to the plugin.

        Raises:
            Violation: It does not hold.
            NotApplicable: It says nothing about this plugin; a test runner skips it.
        """
        try:
            self.rule.test(self.trial)
        except NotApplicable:
            raise
        except Exception as error:
            raise Violation(f"{self.rule.title}: {_told(error)} {self.rule.advice}") from error

    def finding(self) -> Finding:
        """Put the rule to the plugin and say what came of it; whatever the plugin raises is a failure of its own."""
        title = self.rule.title
        try:
            self.rule.test(self.trial)
        except NotApplicable as reason:
            return Finding(title, "not applicable", str(reason))
        except Exception as error:
            return Finding(title, "fails", _told(error), self.rule.advice)
        return Finding(title, "holds")

    def __str__(self) -> str:
        return self.rule.title.replace(" ", "-").replace("'", "")


def _told(error: Exception) -> str:
    """Say in a line what was found, or what a plugin raised."""
    if isinstance(error, Violation | ClvrBenchError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def require(condition: object, message: str) -> None:
    """Raise a violation unless a condition holds.

    Raises:
        Violation: It does not.
    """
    if not condition:
        raise Violation(message)


def listed(names: set[str] | list[str], most: int = 5) -> str:
    """List some names and count the others."""
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")

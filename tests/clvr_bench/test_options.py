from __future__ import annotations

from functools import partial
from typing import Any, Literal

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.options import options_of, parse_value, resolve_options


def factory(
    encoder: object,
    *,
    temperature: float = 0.1,
    layers: int = 2,
    symmetric: bool = True,
    mode: Literal["auto", "small"] = "auto",
    area: tuple[float, float] = (0.08, 1.0),
    strength: float | None = None,
) -> None: ...


OPTIONS = options_of(factory)


def test_options_are_the_keyword_only_arguments() -> None:
    assert list(OPTIONS) == ["temperature", "layers", "symmetric", "mode", "area", "strength"]


def test_options_read_as_users_write_them() -> None:
    assert str(OPTIONS["temperature"]) == "temperature: float = 0.1"
    assert str(OPTIONS["mode"]) == "mode: 'auto' | 'small' = \"auto\""
    assert str(OPTIONS["strength"]) == "strength: float | None, unset"
    assert str(OPTIONS["area"]) == "area: tuple[float, float] = [0.08, 1.0]"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", 1, 1.0),
        ("temperature", 0.5, 0.5),
        ("layers", 3, 3),
        ("symmetric", False, False),
        ("mode", "small", "small"),
        ("area", [0.3, 1], (0.3, 1.0)),
        ("strength", 0.5, 0.5),
    ],
)
def test_values_of_the_right_type_are_taken(name: str, value: object, expected: object) -> None:
    taken = resolve_options(OPTIONS, {name: value}, "suite")[name]
    assert taken == expected
    assert type(taken) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("layers", 2.5),
        ("layers", "2"),
        ("symmetric", 1),
        ("mode", "large"),
        ("area", [0.3]),
        ("area", 0.3),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(ClvrBenchError, match=rf"suite: {name} must be .*, got"):
        resolve_options(OPTIONS, {name: value}, "suite")


def test_an_unknown_option_gets_a_near_match() -> None:
    with pytest.raises(ClvrBenchError, match=r"unknown option 'temprature'. Did you mean 'temperature'?"):
        resolve_options(OPTIONS, {"temprature": 1.0}, "suite")


def test_a_required_option_must_be_given() -> None:
    def needy(*, path: str) -> None: ...

    with pytest.raises(ClvrBenchError, match=r"option 'path' \(str\) is required"):
        resolve_options(options_of(needy), {}, "suite")


def test_a_partial_has_the_options_of_its_function() -> None:
    assert list(options_of(partial(factory, None))) == list(OPTIONS)


@pytest.mark.parametrize(
    ("text", "value"), [("0.2", 0.2), ("3", 3), ("true", True), ("[0.3, 1.0]", [0.3, 1.0]), ("small", "small")]
)
def test_command_line_values_are_toml_or_plain_text(text: str, value: Any) -> None:
    assert parse_value(text) == value

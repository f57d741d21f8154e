"""The options of a factory: its keyword-only, typed arguments. Read from the signature, checked with pydantic."""

from __future__ import annotations

import inspect
import json
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from clvr_bench.errors import ClvrBenchError, PluginError, unknown

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """One option of a factory.

    Attributes:
        name: The argument's name.
        annotation: Its type.
        default: Its default; ``REQUIRED`` where it has none.
    """

    name: str
    annotation: Any
    default: Any

    @property
    def type_name(self) -> str:
        """The type as a user reads it, such as ``float`` or ``'auto' | 'small'``."""
        if typing.get_origin(self.annotation) is typing.Literal:
            return " | ".join(repr(choice) for choice in typing.get_args(self.annotation))
        return (
            self.annotation.__name__
            if isinstance(self.annotation, type) and not typing.get_args(self.annotation)
            else str(self.annotation).replace("typing.", "")
        )

    def __str__(self) -> str:
        if self.default is REQUIRED or self.default is None:
            return f"{self.name}: {self.type_name}, {'required' if self.default is REQUIRED else 'unset'}"
        return f"{self.name}: {self.type_name} = {json.dumps(self.default)}"

    def accepts(self, value: object) -> bool:
        """Whether a value, as TOML gives it, is of this option's type."""
        try:
            self._parse(value)
        except ValidationError:
            return False
        return True

    def check(self, value: object, where: str) -> Any:
        """Return the value in the option's type.

        Args:
            value: As TOML gives it; an integer serves as a float, a list as a tuple, nothing else is converted.
            where: What the message says it came from, such as ``suite.toml: simclr``.

        Raises:
            ClvrBenchError: The value is of another type or out of the type's range.
        """
        try:
            return self._parse(value)
        except ValidationError:
            raise ClvrBenchError(f"{where}: {self.name} must be {self.type_name}, got {value!r}.") from None

    def _parse(self, value: object) -> Any:
        return TypeAdapter(self.annotation).validate_json(json.dumps(value, default=str), strict=True)


def options_of(factory: Callable[..., Any]) -> dict[str, Option]:
    """Read a factory's options from its signature.

    Raises:
        PluginError: An option has no type, or one that a TOML value cannot have.
    """
    function: Any = factory.func if isinstance(factory, partial) else factory
    name = function.__qualname__
    try:
        types = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except NameError as error:
        raise PluginError(f"{name}: cannot read the types of its options ({error}).") from None
    found = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.name not in types:
            raise PluginError(f"{name}: option '{parameter.name}' has no type. Write '{parameter.name}: float'.")
        option = Option(parameter.name, types[parameter.name], parameter.default)
        _require_toml_type(name, option)
        found[option.name] = option
    return found


def _require_toml_type(owner: str, option: Option) -> None:
    try:
        fits = option.default is REQUIRED or option.accepts(option.default)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        raise PluginError(
            f"{owner}: option '{option.name}' has type {option.type_name}, which no TOML value has. "
            "Use bool, int, float, str, Literal, tuple or None."
        ) from None
    if not fits:
        raise PluginError(
            f"{owner}: the default of option '{option.name}', {option.default!r}, is not {option.type_name}."
        )


def resolve_options(options: Mapping[str, Option], given: Mapping[str, object], where: str) -> dict[str, Any]:
    """Check given options and fill in the defaults of the others.

    Raises:
        ClvrBenchError: A name is unknown, a value ill-typed, or a required option is missing.
    """
    for name in given:
        if name not in options:
            raise ClvrBenchError(f"{where}: {unknown('option', name, options)}")
    for name, option in options.items():
        if option.default is REQUIRED and name not in given:
            raise ClvrBenchError(f"{where}: option '{name}' ({option.type_name}) is required.")
    return {
        name: option.check(given[name], where) if name in given else option.default for name, option in options.items()
    }


def parse_value(text: str) -> object:
    """Read an option's value from the command line: a TOML value, or else a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

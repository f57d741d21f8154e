"""The options of a factory: its keyword-only, typed arguments. Read from the signature, checked with pydantic."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError, ValidationInfo
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from clvr_bench.errors import ClvrBenchError, PluginError, unknown

REQUIRED = inspect.Parameter.empty
_HASHES: dict[tuple[Path, int, int], str] = {}  # of path, bytes and time of change: large files are hashed once


class InputFile(str):
    """A file as an option's value. Its text is the hash of the content, which is what identities and records keep.

    So the same file elsewhere is the same run, and a changed file another. Suites and ``--set`` give a path, relative
    to the current folder; a record gives ``sha256:`` and 64 hexadecimal digits back, and then no path is known.

    Attributes:
        path: Where the file is, absolute; None where only its hash is known.
    """

    path: Path | None

    def __new__(cls, text: str, path: Path | None = None) -> Self:
        """Take a hash, and where the file is."""
        file = super().__new__(cls, text)
        file.path = path
        return file

    @property
    def name(self) -> str:
        """What the file is called; empty where only its hash is known."""
        return self.path.name if self.path else ""

    @property
    def shown(self) -> str:
        """Name and hash as tables show them, such as ``moco_v2_800ep.pth.tar@ab12cd34ef56``."""
        return f"{self.name or 'file'}@{self.removeprefix('sha256:')[:12]}"

    def verified_path(self) -> Path:
        """Return where the file is, once more made sure that it is what was hashed.

        Raises:
            ClvrBenchError: The path is not known, or what is there cannot be read or is another file by now.
        """
        if self.path is None:
            raise ClvrBenchError(f"only the hash of {self.shown} is known, not where it is. Give its path.")
        try:
            now = _hash(self.path)
        except OSError as error:
            raise ClvrBenchError(f"{self.path}: {error.strerror}. It was there when the run was planned.") from None
        if now != self:
            raise ClvrBenchError(f"{self.path}: it was changed since the run was planned. Start the run again.")
        return self.path

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic to take text, and what to make of it."""
        return core_schema.with_info_after_validator_function(cls._parse, core_schema.str_schema(strict=True))

    @classmethod
    def _parse(cls, text: str, info: ValidationInfo) -> Self:
        if text.startswith("sha256:"):
            if not re.fullmatch("sha256:[0-9a-f]{64}", text):
                raise _no_file(f"'{text}' is not sha256: and 64 hexadecimal digits")
            return (info.context or {}).get(text) or cls(text)
        path = Path(text).expanduser().absolute()
        try:
            return cls(_hash(path), path)
        except FileNotFoundError:
            raise _no_file(
                f"there is no file '{text}'" + ("" if Path(text).is_absolute() else f" in {Path.cwd()}")
            ) from None
        except OSError as error:
            raise _no_file(f"'{text}' cannot be read ({error.strerror})") from None


def _no_file(reason: str) -> PydanticCustomError:
    return PydanticCustomError("input_file", "{reason}", {"reason": reason})


def _hash(path: Path) -> str:
    status = path.stat()
    key = (path.resolve(), status.st_size, status.st_mtime_ns)
    if key not in _HASHES:
        with path.open("rb") as file:
            _HASHES[key] = f"sha256:{file_digest(file, 'sha256').hexdigest()}"
    return _HASHES[key]


def shown(value: object) -> Any:
    """Return an option's value as tables show it: a file by its name and the start of its hash, all else as it is."""
    if isinstance(value, list | tuple):
        return type(value)(shown(item) for item in value)
    return value.shown if isinstance(value, InputFile) else value


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
        if self.annotation is InputFile:
            return "file"
        return (
            self.annotation.__name__
            if isinstance(self.annotation, type) and not typing.get_args(self.annotation)
            else str(self.annotation).replace("typing.", "").replace(f"{__name__}.{InputFile.__name__}", "file")
        )

    def __str__(self) -> str:
        if self.default is REQUIRED or self.default is None:
            return f"{self.name}: {self.type_name}, {'required' if self.default is REQUIRED else 'unset'}"
        return f"{self.name}: {self.type_name} = {json.dumps(self.default)}"

    def accepts(self, value: object) -> bool:
        """Whether a value, as TOML gives it, is of this option's type; a path is a file's, whatever is there."""
        try:
            self._parse(value)
        except ValidationError as error:
            return all(problem["type"] == "input_file" for problem in error.errors())
        return True

    def check(self, value: object, where: str) -> Any:
        """Return the value in the option's type.

        Args:
            value: As TOML gives it; an integer serves as a float, a list as a tuple, a path or hash as a file, nothing
                else is converted.
            where: What the message says it came from, such as ``suite.toml: simclr``.

        Raises:
            ClvrBenchError: The value is of another type or out of its range, or names a file that cannot be read.
        """
        try:
            return self._parse(value)
        except ValidationError as error:
            missing = [problem["msg"] for problem in error.errors() if problem["type"] == "input_file"]
            if missing:
                raise ClvrBenchError(f"{where}: {self.name}: {missing[0]}. Give the path of a file.") from None
            raise ClvrBenchError(f"{where}: {self.name} must be {self.type_name}, got {value!r}.") from None

    def _parse(self, value: object) -> Any:
        items = value if isinstance(value, list | tuple) else (value,)
        known = {str(item): item for item in items if isinstance(item, InputFile)}  # JSON would lose where they are
        return TypeAdapter(self.annotation).validate_json(json.dumps(value, default=str), strict=True, context=known)


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
            "Use bool, int, float, str, InputFile, Literal, tuple or None."
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

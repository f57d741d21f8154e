"""Suites: what to run, as TOML. The files beside this module are the built-in ones."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clvr_bench.errors import ClvrBenchError, unknown

BUILT_IN = Path(__file__).parent

Item = str | dict[str, Any]
"""A name, or a table of a name and options; a list as an option's value is an axis."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Budget(_Table):
    """What every pretext task of a suite may spend.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Samples an optimizer step.
        accumulate: Parts that a step's batch is split into to save memory; needs a separable loss where not 1.
        precision: ``"auto"`` is bf16 where the device has it, else fp32.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = "auto"


class Suite(_Table):
    """A set of combinations: every pretext task x encoder x augmentation x data set x seed.

    Attributes:
        name: Names the folder of its results.
        summary: One sentence.
        seeds: Seeds of encoder, heads, order and draws.
        encoders: Encoders.
        augmentations: ``"default"`` is each task's own; a list within the list is a chain.
        datasets: Data sets.
        evaluations: Evaluations; the leaderboard's top-1 is that of ``linear``.
        budget: Epochs and batch size.
        pretext_tasks: Pretext tasks; besides options, a table may have ``recipe`` (a table), ``augmentation`` (what
            ``"default"`` means for it here), ``encoders`` (instead of the suite's) and ``options_source`` (where the
            options come from).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    summary: str = ""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    encoders: list[Item] = Field(min_length=1)
    augmentations: list[Item | list[Item]] = Field(default=["default"], min_length=1)
    datasets: list[Item] = Field(min_length=1)
    evaluations: list[Item] = ["linear", "knn", "health"]
    budget: Budget
    pretext_tasks: list[Item] = Field(min_length=1)


def built_in_suites() -> dict[str, Path]:
    """Return the built-in suites' files by name."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.toml"))}


def load_suite(name_or_file: str) -> Suite:
    """Read a built-in suite by name, or any suite from its TOML file.

    Raises:
        ClvrBenchError: There is no such suite, the file is not TOML, or a key or value is wrong.
    """
    built_in = built_in_suites()
    path = built_in.get(name_or_file, Path(name_or_file))
    if not path.is_file():
        if path.suffix == ".toml":
            raise ClvrBenchError(f"{path}: no such suite file.")
        raise ClvrBenchError(f"{unknown('suite', name_or_file, built_in)} Or name a TOML file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClvrBenchError(f"{path}: not a TOML file ({error}).") from None
    return parse_suite(content, str(path))


def parse_suite(content: Mapping[str, Any], where: str) -> Suite:
    """Check a suite's content.

    Args:
        content: As TOML gives it.
        where: The file, for messages.

    Raises:
        ClvrBenchError: A key is unknown or missing, or a value is wrong.
    """
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        raise ClvrBenchError(f"{where}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    # a misspelt key is also a missing one, and it is the spelling that is to be mended
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path = [str(part) for part in problem["loc"] if not str(part).startswith(("str", "dict[", "list["))]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        model = Budget if path[0] == "budget" else Suite
        return unknown("key" if len(path) == 1 else "key in [budget]", path[-1], model.model_fields)
    if problem["type"] == "missing":
        return f"the key '{key}' is missing."
    value = problem["input"]
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {value!r}."

"""What plugins registered: entries by kind and name, families of names, and clear answers for unknown names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.dataset import Dataset
from clvr_bench.contracts.encoder import Encoder
from clvr_bench.contracts.evaluation import Evaluation
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.errors import ClvrBenchError, PluginError, unknown
from clvr_bench.options import Option, options_of


class Kind(StrEnum):
    """What can be registered; the value is the word that messages use."""

    PRETEXT_TASK = "pretext task"
    ENCODER = "encoder"
    AUGMENTATION = "augmentation"
    DATASET = "dataset"
    EVALUATION = "evaluation"

    @property
    def plural(self) -> str:
        """As suites and hooks spell it: ``pretext_tasks``."""
        return self.value.replace(" ", "_") + "s"

    @property
    def hook(self) -> str:
        """The hook that registers it."""
        return f"register_{self.plural}"


_CONTRACTS: dict[Kind, type] = {
    Kind.PRETEXT_TASK: PretextTask,
    Kind.ENCODER: Encoder,
    Kind.AUGMENTATION: Augmentation,
    Kind.DATASET: Dataset,
    Kind.EVALUATION: Evaluation,
}


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        kind: What it is.
        name: What suites call it.
        factory: What builds it.
        summary: One sentence.
        source: Paper or project.
        version: Its version; with the code's hash for files of a plugins directory.
        plugin: Who registered it.
    """

    kind: Kind
    name: str
    factory: Callable[..., Any]
    summary: str
    source: str
    version: str
    plugin: str

    @cached_property
    def options(self) -> dict[str, Option]:
        """Its options by name."""
        return options_of(self.factory)


@dataclass(frozen=True)
class Family:
    """All names that a library resolves; see ``hooks.Register.family``."""

    kind: Kind
    name: str
    names: Callable[[], list[str]]
    factory: Callable[[str], Callable[..., Any]]
    summary: str
    source: str
    version: str
    plugin: str

    def member(self, name: str) -> Entry:
        """Return the entry of one of its names."""
        return Entry(self.kind, name, self.factory(name), self.summary, self.source, self.version, self.plugin)


@dataclass
class Registrar:
    """The ``register`` callback of one plugin for one kind; what it collects is kept only if the whole plugin loads."""

    kind: Kind
    plugin: str
    code: str = ""
    entries: list[Entry] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)

    def __call__(self, name: str, factory: Callable[..., Any], *, summary: str, source: str, version: int) -> None:
        """Register one name; see ``hooks.Register``."""
        self._check_declaration(name, factory, summary, source, version)
        _check_contract(self.kind, name, factory)
        entry = Entry(self.kind, name, factory, summary, source, self._version(version), self.plugin)
        _ = entry.options  # an option without a usable type is the author's error, so it is found here
        self.entries.append(entry)

    def family(
        self,
        name: str,
        names: Callable[[], list[str]],
        factory: Callable[[str], Callable[..., Any]],
        *,
        summary: str,
        source: str,
        version: int,
    ) -> None:
        """Register a family of names; see ``hooks.Register.family``."""
        self._check_declaration(name, factory, summary, source, version)
        self.families.append(
            Family(self.kind, name, names, factory, summary, source, self._version(version), self.plugin)
        )

    def _version(self, version: int) -> str:
        return f"{version}+{self.code}" if self.code else str(version)

    def _check_declaration(self, name: str, factory: object, summary: str, source: str, version: int) -> None:
        wrong = None
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            wrong = "a name is lower case letters, digits and underscores, such as 'barlow_twins'"
        elif not callable(factory):
            wrong = f"its factory must be a class or a function, got {factory!r}"
        elif not (isinstance(summary, str) and summary.strip() and isinstance(source, str) and source.strip()):
            wrong = 'summary and source must be text; write source="none" if it is your own'
        elif isinstance(version, bool) or not isinstance(version, int) or version < 1:
            wrong = f"version must be a whole number from 1, got {version!r}"
        if wrong:
            raise PluginError(f"{self.kind} {name!r}: {wrong}.")


def _check_contract(kind: Kind, name: str, factory: Callable[..., Any]) -> None:
    contract = _CONTRACTS[kind]
    if not inspect.isclass(factory):
        if kind is Kind.PRETEXT_TASK:
            raise PluginError(f"pretext task '{name}': register the class itself, got the function {factory!r}.")
        return
    if not issubclass(factory, contract):
        raise PluginError(f"{kind} '{name}': {factory.__qualname__} must subclass clvr_bench.{contract.__name__}.")
    missing = sorted(getattr(factory, "__abstractmethods__", ()))
    if issubclass(factory, PretextTask) and factory.trains and factory.forward is PretextTask.forward:
        missing.append("forward")
    if missing:
        raise PluginError(f"{kind} '{name}': {factory.__qualname__} does not implement {', '.join(missing)}.")


class Registry:
    """All entries of all loaded plugins."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Kind, str], Entry] = {}
        self._contested: dict[tuple[Kind, str], str] = {}
        self._families: list[Family] = []
        self.load_errors: list[str] = []

    def add(self, registrar: Registrar) -> None:
        """Take over what a plugin registered.

        Raises:
            PluginError: A name is taken; the message names both owners, and the name serves neither.
        """
        taken = []
        for entry in registrar.entries:
            key = (entry.kind, entry.name)
            owner = self._entries.get(key)
            if owner is None:
                self._entries[key] = entry
            else:
                taken.append(
                    f"{entry.kind} '{entry.name}' is registered by both '{owner.plugin}' and '{entry.plugin}'. "
                    f"Rename one, or leave one out with --no-plugin {entry.plugin}"
                )
                self._contested[key] = taken[-1]
        self._families.extend(registrar.families)
        if taken:
            raise PluginError(f"{'; '.join(taken)}.")

    def extended(self, *entries: Entry) -> Registry:
        """Return a registry that has these entries too; this one stays as it is."""
        other = copy(self)
        other._entries = self._entries | {(entry.kind, entry.name): entry for entry in entries}
        return other

    def get(self, kind: Kind, name: str, where: str = "") -> Entry:
        """Look a name up.

        Args:
            kind: What it should be.
            name: As a user wrote it.
            where: What the message says it came from.

        Raises:
            ClvrBenchError: It is unknown (with near matches), or two plugins claim it.
        """
        prefix = f"{where}: " if where else ""
        if (kind, name) in self._contested:
            raise ClvrBenchError(f"{prefix}{self._contested[kind, name]}.")
        if (kind, name) in self._entries:
            return self._entries[kind, name]
        for family in self.families(kind):
            if name in family.names():
                return family.member(name)
        names = [entry.name for entry in self.entries(kind)]
        message = unknown(kind, name, names, {f.name: f.names() for f in self.families(kind)})
        broken = f" Plugins that did not load: {'; '.join(self.load_errors)}." if self.load_errors else ""
        raise ClvrBenchError(f"{prefix}{message}{broken}")

    def entries(self, kind: Kind) -> list[Entry]:
        """List the entries of a kind by name, without those of families."""
        return sorted((e for (k, _), e in self._entries.items() if k is kind), key=lambda entry: entry.name)

    def families(self, kind: Kind) -> list[Family]:
        """List the families of a kind."""
        return [family for family in self._families if family.kind is kind]

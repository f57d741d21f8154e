"""From a suite to its combinations: names looked up, options checked, axes multiplied out. Nothing is built here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.recipe import Recipe
from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.options import Option, options_of, parse_value, resolve_options, shown
from clvr_bench.registry import Entry, Kind, Registry
from clvr_bench.suites import Budget, Item, Suite

PROTOCOL = "standard-v1"
"""The version of what no option changes: the val split, the order of the data, the draws, the frozen features."""

_TASK_KEYS = ("recipe", "augmentation", "encoders", "options_source")


@dataclass(frozen=True)
class Choice:
    """A registered name with all its options.

    Attributes:
        entry: What was chosen.
        options: Every option by name, defaults included.
    """

    entry: Entry
    options: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version and options, as records keep them."""
        return {"name": self.entry.name, "version": self.entry.version, "options": dict(self.options)}

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {name: value for name, value in self.options.items() if value != self.entry.options[name].default}

    @property
    def changed_shown(self) -> dict[str, Any]:
        """The same as tables show them: a file by its name and the start of its hash."""
        return {name: shown(value) for name, value in self.changed.items()}

    def __str__(self) -> str:
        changed = ", ".join(f"{name}={_in_a_name(value)}" for name, value in self.changed_shown.items())
        return f"{self.entry.name}({changed})" if changed else self.entry.name


def _in_a_name(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class TaskChoice(Choice):
    """A pretext task with its options and how it is trained.

    Attributes:
        recipe: Optimizer and schedule.
        default_augmentation: What ``"default"`` means for it.
        encoders: Those that it runs with instead of the suite's; empty where it runs with the suite's.
        options_source: Where its options come from.
    """

    recipe: Recipe = field(default_factory=Recipe)
    default_augmentation: tuple[Item, ...] = ()
    encoders: tuple[Choice, ...] = ()
    options_source: str = ""

    @property
    def task(self) -> type[PretextTask]:
        """The pretext task's class."""
        contract: type[PretextTask] = self.entry.factory  # type: ignore[assignment]  # checked when it was registered
        return contract


@dataclass(frozen=True)
class Combination:
    """One thing to pretrain and evaluate.

    Attributes:
        task: The pretext task.
        encoder: The encoder; None where the task uses none.
        augmentation: The chain of augmentations; empty where the task takes no views.
        dataset: The data set.
        seed: Of encoder, heads, order and draws.
        budget: Epochs and batch size.
        evaluations: What judges it.
    """

    task: TaskChoice
    encoder: Choice | None
    augmentation: tuple[Choice, ...]
    dataset: Choice
    seed: int
    budget: Budget
    evaluations: tuple[Choice, ...]

    def __str__(self) -> str:
        encoder = f" / {self.encoder}" if self.encoder else ""
        chain = f" / {'+'.join(map(str, self.augmentation))}" if self.augmentation else ""
        return f"{self.task}{encoder}{chain} / {self.dataset} / seed {self.seed}"

    def identity(self, fingerprint: str, precision: str) -> dict[str, Any]:
        """Return all that can change a score, as the pretraining record keeps it.

        Args:
            fingerprint: Hash of the data.
            precision: ``"bf16"`` or ``"fp32"``.
        """
        return {
            "pretext_task": self.task.identity,
            "encoder": self.encoder.identity if self.encoder else None,
            "augmentation": [choice.identity for choice in self.augmentation],
            "dataset": {**self.dataset.identity, "fingerprint": fingerprint},
            "recipe": self.task.recipe.identity if self.task.task.trains else None,
            "budget": self.budget.model_dump(exclude={"precision"}) if self.task.task.trains else None,
            "seed": self.seed,
            "precision": precision,
            "protocol": PROTOCOL,
        }

    @property
    def options_shown(self) -> dict[str, Any]:
        """The options that differ from their defaults, prefixed by what they belong to."""
        changed = self.task.changed_shown
        paper = asdict(self.task.task.recipe)
        changed |= {f"recipe.{k}": v for k, v in asdict(self.task.recipe).items() if v != paper[k]}
        changed |= {f"encoder.{k}": v for k, v in (self.encoder.changed_shown if self.encoder else {}).items()}
        return changed | {f"dataset.{k}": v for k, v in self.dataset.changed_shown.items()}


@dataclass(frozen=True)
class Override:
    """One ``--set [KIND.]NAME.OPTION=VALUE``.

    Attributes:
        text: As it was written.
        kind: What the name is; None where the suite decides.
        name: A registered name.
        option: The option, such as ``temperature`` or ``recipe.learning_rate``.
        value: As TOML would give it.
    """

    text: str
    kind: Kind | None
    name: str
    option: str
    value: object = field(hash=False)  # a list has no hash; the text tells overrides apart

    @classmethod
    def parse(cls, text: str) -> Override:
        """Read an override from the command line.

        Raises:
            ClvrBenchError: It is not of that form.
        """
        path, equals, value = text.partition("=")
        kinds = {kind.value.replace(" ", "_"): kind for kind in Kind}
        first, _, rest = path.strip().partition(".")
        kind = kinds.get(first)
        name, dot, option = (rest if kind else path.strip()).partition(".")
        if not (equals and dot and name and option):
            raise ClvrBenchError(f"--set {text}: expected [KIND.]NAME.OPTION=VALUE, such as simclr.temperature=0.2.")
        return cls(text, kind, name, option, parse_value(value.strip()))


class Planner:
    """Turns a suite into combinations with the names of a registry.

    Args:
        suite: What to run.
        registry: What is registered.
        where: The suite's file, for messages.
        overrides: Options from the command line, which win.
    """

    def __init__(
        self, suite: Suite, registry: Registry, where: str = "suite", overrides: Sequence[Override] = ()
    ) -> None:
        self._suite, self._registry, self._where, self._overrides = suite, registry, where, overrides
        self._used: set[Override] = set()
        self._met: set[str] = set()

    def combinations(self) -> list[Combination]:
        """Multiply the suite out, duplicates removed, ordered so that each seed's table fills up before the next.

        Raises:
            ClvrBenchError: A name is unknown, an option is unknown or ill-typed, an override meets nothing.
        """
        suite = self._suite
        tasks = [choice for item in suite.pretext_tasks for choice in self._task_choices(item)]
        shared = self._choices(Kind.ENCODER, suite.encoders)
        encoders = [*shared, *(choice for task in tasks for choice in task.encoders if choice not in shared)]
        datasets = self._choices(Kind.DATASET, suite.datasets)
        evaluations = tuple(self._choices(Kind.EVALUATION, suite.evaluations))
        found: dict[str, Combination] = {}
        for dataset, seed, encoder, item, task in product(datasets, suite.seeds, encoders, suite.augmentations, tasks):
            if encoder not in (task.encoders or shared):
                continue
            for chain in self._chains(item, task):
                combination = Combination(
                    task=task,
                    encoder=self._with_task_options(encoder, task) if task.task.uses_encoder else None,
                    augmentation=chain if task.task.views != 0 else (),
                    dataset=dataset,
                    seed=seed,
                    budget=suite.budget,
                    evaluations=evaluations,
                )
                found.setdefault(repr(combination.identity("", "")), combination)
        self._require_overrides_used()
        return list(found.values())

    def _choices(self, kind: Kind, items: Sequence[Item]) -> list[Choice]:
        return [choice for item in items for choice in self._expand(kind, item)]

    def _expand(self, kind: Kind, item: Item, reserved: Sequence[str] = ()) -> Iterator[Choice]:
        """Look an item up and multiply out the options that are lists of values."""
        name, given = self._name_and_options(kind, item)
        where = f"{self._where}: {kind} '{name}'"
        entry = self._registry.get(kind, name, self._where)
        self._met.add(name)
        given = {**given, **self._overrides_for(kind, name, reserved)}
        plain = {key: value for key, value in given.items() if key not in reserved}
        yield from expand(entry, plain, where)

    def _task_choices(self, item: Item) -> Iterator[TaskChoice]:
        name, given = self._name_and_options(Kind.PRETEXT_TASK, item)
        where = f"{self._where}: pretext task '{name}'"
        for choice in self._expand(Kind.PRETEXT_TASK, item, _TASK_KEYS):
            task: type[PretextTask] = choice.entry.factory  # type: ignore[assignment]  # checked when it was registered
            changes = {**_table(given, "recipe", where), **self._recipe_overrides(name)}
            default = given.get("augmentation", task.default_augmentation)
            source = given.get("options_source", "paper" if not (choice.changed or changes) else "not stated")
            yield TaskChoice(
                choice.entry,
                choice.options,
                recipe=_changed_recipe(task.recipe, changes, where),
                default_augmentation=tuple(default) if isinstance(default, list | tuple) else (default,),
                encoders=tuple(self._choices(Kind.ENCODER, _items(given, "encoders", where))),
                options_source=source,
            )

    def _chains(self, item: Item | list[Item], task: TaskChoice) -> Iterator[tuple[Choice, ...]]:
        links: Sequence[Item] = (
            task.default_augmentation if item == "default" else item if isinstance(item, list) else [item]
        )
        yield from product(*(list(self._expand(Kind.AUGMENTATION, link)) for link in links))

    def _with_task_options(self, encoder: Choice, task: TaskChoice) -> Choice:
        """Build the encoder as the task needs it; an option that the suite set differently is refused."""
        needed = task.task.encoder_options(**task.options)
        where = f"{self._where}: pretext task '{task.entry.name}' with encoder '{encoder.entry.name}'"
        for name, value in needed.items():
            if name in encoder.changed and encoder.changed[name] != value:
                raise ClvrBenchError(
                    f"{where}: the task needs {name}={value!r}, the suite says {encoder.changed[name]!r}."
                )
        return Choice(encoder.entry, resolve_options(encoder.entry.options, {**encoder.options, **needed}, where))

    def _name_and_options(self, kind: Kind, item: Item) -> tuple[str, dict[str, Any]]:
        return _name_and_options(kind, item, self._where)

    def _overrides_for(self, kind: Kind, name: str, reserved: Sequence[str]) -> dict[str, object]:
        found = {}
        for override in self._overrides:
            key = override.option.partition(".")[0]
            if self._meets(override, kind, name) and key not in reserved:
                found[override.option] = override.value
                self._used.add(override)
        return found

    def _recipe_overrides(self, name: str) -> dict[str, object]:
        found = {}
        for override in self._overrides:
            table, _, key = override.option.partition(".")
            if table == "recipe" and self._meets(override, Kind.PRETEXT_TASK, name):
                found[key] = override.value
                self._used.add(override)
        return found

    def _meets(self, override: Override, kind: Kind, name: str) -> bool:
        """Whether an override is for this name; without a kind, a task's name wins over an augmentation's."""
        if override.name != name or override.kind not in (None, kind):
            return False
        tasks = {self._name_and_options(Kind.PRETEXT_TASK, item)[0] for item in self._suite.pretext_tasks}
        return override.kind is kind or kind is Kind.PRETEXT_TASK or name not in tasks

    def _require_overrides_used(self) -> None:
        for override in self._overrides:
            if override not in self._used:
                raise ClvrBenchError(f"--set {override.text}: {unknown('name', override.name, self._met)}")


def choices(kind: Kind, item: Item, registry: Registry, where: str) -> list[Choice]:
    """Look a name up, or a mapping of ``name`` and options; once for every combination of options that are lists.

    Args:
        kind: What the name should be.
        item: As a suite would have it.
        registry: What is registered.
        where: What messages say it came from.

    Raises:
        ClvrBenchError: The name or an option is unknown, or an option's value is not allowed.
    """
    name, given = _name_and_options(kind, item, where)
    return list(expand(registry.get(kind, name, where), given, f"{where}: {kind} '{name}'"))


def _name_and_options(kind: Kind, item: Item, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    options = dict(item)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ClvrBenchError(f"{where}: a table in {kind.plural} needs a name, got {item!r}.")
    return name, options


def expand(entry: Entry, given: Mapping[str, Any], where: str) -> Iterator[Choice]:
    """Choose an entry once for every combination of the options that are lists of values.

    Args:
        entry: What is chosen.
        given: Options by name.
        where: What messages say it came from.

    Raises:
        ClvrBenchError: An option is unknown or missing, or its value is not allowed.
    """
    axes = [_axis(entry.options.get(key), value) for key, value in given.items()]
    for values in product(*axes):
        yield Choice(entry, resolve_options(entry.options, dict(zip(given, values, strict=True)), where))


def _axis(option: Option | None, value: object) -> list[Any]:
    """Return the values to multiply out: a list is an axis unless the option itself takes a list."""
    return value if isinstance(value, list) and option is not None and not option.accepts(value) else [value]


def _table(given: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise ClvrBenchError(f"{where}: {key} must be a table, got {value!r}.")
    return value


def _items(given: Mapping[str, Any], key: str, where: str) -> list[Item]:
    value = given.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str | dict) for item in value):
        raise ClvrBenchError(f"{where}: {key} must be a list of names or tables, got {value!r}.")
    return value


def _changed_recipe(recipe: Recipe, changes: Mapping[str, object], where: str) -> Recipe:
    checked = resolve_options(options_of(Recipe), changes, f"{where}, recipe")
    return replace(recipe, **{name: checked[name] for name in changes})

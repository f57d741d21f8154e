"""Which runs make a row: those that differ in nothing but the seed, without those that newer code superseded.

What a run scored on other data than it was pretrained on is a row of its own: a transfer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from typing import Any

from clvr_bench.budgets import epochs_said
from clvr_bench.records import EvaluationRecord, Run, digest

LINEAR = "linear"
"""The evaluation whose top-1 is the leaderboard's."""
ARROW = " → "
"""Stands between the data that a run was pretrained on and the data that it was evaluated on."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Group:
    """The runs of one row.

    Attributes:
        key: The digest of all that they share.
        runs: One a seed, sorted by seed, each with only those evaluations that belong to this row.
    """

    key: str
    runs: tuple[Run, ...]

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What they share, and one of the seeds."""
        return self.runs[0].pretraining.identity

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What is known of them; of runs that are done, where there are any."""
        done = [run for run in self.runs if run.pretraining.status == "done"]
        return (done or self.runs)[0].pretraining.facts

    @cached_property
    def target(self) -> Mapping[str, Any] | None:
        """``name``, ``options`` and ``fingerprint`` of the data they were evaluated on; None where it is their own."""
        records = (record for run in self.runs for record in run.evaluations)
        return next((_content(transferred_to(record)) for record in records), None)

    @cached_property
    def target_facts(self) -> Mapping[str, Any]:
        """What is known of that other data, by the names that ``facts`` has; empty where there is none."""
        if self.target is None:
            return {}
        records = [record for run in self.runs for record in run.evaluations]
        return dict(max(records, key=lambda record: _finished(record.provenance)).details.get("transfer", {}))

    @cached_property
    def dataset(self) -> str:
        """The title of their data; of both kinds, where they were evaluated on other data."""
        own = str(self.facts.get("dataset") or self.identity["dataset"]["name"])
        if self.target is None:
            return own
        return f"{own}{ARROW}{self.target_facts.get('dataset') or self.target['name']}"

    @cached_property
    def options_shown(self) -> dict[str, Any]:
        """The options that differ from their defaults, prefixed by what they belong to."""
        further = {f"evaluated_on.{k}": v for k, v in self.target_facts.get("options_shown", {}).items()}
        return {**self.facts.get("options_shown", {}), **further}

    @cached_property
    def num_classes(self) -> int | None:
        """K of the data that they were evaluated on; None where no record says it."""
        return (self.facts if self.target is None else self.target_facts).get("num_classes")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Of the data that they were evaluated on, in the order of the labels; empty where no record says them."""
        return tuple((self.facts if self.target is None else self.target_facts).get("class_names", ()))

    @cached_property
    def fingerprint(self) -> str:
        """The first digits of their data's fingerprint, or of both."""
        parts = [self.identity["dataset"], *([self.target] if self.target else [])]
        return ARROW.join(part["fingerprint"][:8] for part in parts)

    @cached_property
    def parts(self) -> list[Mapping[str, Any]]:
        """The identities of the plugins they were pretrained with."""
        identity = self.identity
        found = [identity["pretext_task"], identity["encoder"], *identity["augmentation"], identity["dataset"]]
        return [part for part in found if part]

    @cached_property
    def _asked(self) -> str:
        """The digest of the pretraining that was asked for, whatever its data held then."""
        shown = self.facts.get("options_shown")
        asked = {key: self.identity[key] for key in ("budget", "precision")}
        asked["names"] = [part["name"] for part in self.parts]
        asked["options"] = [part["options"] for part in self.parts] if shown is None else shown
        asked["recipe"] = self.identity["recipe"] if shown is None else None
        asked["augmentation"] = self.facts.get("augmentation") if shown is not None else None
        return digest([self.runs[0].suite, asked])

    @cached_property
    def origin(self) -> str:
        """The digest of the pretraining that was asked for: the same before and after an edit of a plugin's code."""
        return digest([self._asked, self.identity["dataset"]["fingerprint"]])

    @cached_property
    def request(self) -> str:
        """The digest of the pretraining that was asked for, and of the data that it was evaluated on."""
        return digest([self.origin, self.target])

    @cached_property
    def look(self) -> str:
        """The digest of what tells a row from others, whatever its data held then."""
        return digest([self._asked, self.target and [self.target["name"], self.target["options"]]])

    @cached_property
    def code(self) -> str:
        """The digest of the versions, or hashes of code, that they were pretrained with."""
        own = ("name", "options", "fingerprint")
        versions = [{key: value for key, value in part.items() if key not in own} for part in self.parts]
        return digest([versions, self.identity["protocol"]])

    @cached_property
    def finished(self) -> datetime:
        """When the last of them ended."""
        return max(_finished(run.pretraining.provenance) for run in self.runs)

    @cached_property
    def evaluations(self) -> Mapping[str, Mapping[str, EvaluationRecord]]:
        """By evaluation's label and run's ID: what was found, by the version that was used last."""
        found: dict[str, dict[str, dict[str, EvaluationRecord]]] = {}
        for run in self.runs:
            for record in run.evaluations:
                variants = found.setdefault(label(record), {})
                variants.setdefault(_variant(record), {})[run.pretraining.id] = record
        return {name: max(variants.values(), key=_newness) for name, variants in found.items()}

    @cached_property
    def headline(self) -> str:
        """The label of the linear evaluation whose top-1 counts: with default options, or else the one done last."""
        if LINEAR in self.evaluations:
            return LINEAR
        found = {name: records for name, records in self.evaluations.items() if name.startswith(f"{LINEAR}[")}
        return max(found, key=lambda name: _newness(found[name]), default=LINEAR)

    @cached_property
    def linear(self) -> Mapping[str, EvaluationRecord]:
        """The linear evaluations by run's ID."""
        return self.evaluations.get(self.headline, {})

    def state(self, run: Run) -> str:
        """Say how one of the runs ended."""
        if run.pretraining.status != "done":
            return run.pretraining.status
        if run.pretraining.id not in self.linear:
            return "no linear evaluation" if run.evaluations else "not evaluated"
        return "done" if "top1" in self.metrics(run, LINEAR) else "evaluation failed"

    @cached_property
    def counted(self) -> list[Run]:
        """The runs that enter top-1."""
        return [run for run in self.runs if self.state(run) == "done"]

    @cached_property
    def averaged(self) -> list[Run]:
        """The runs that enter the means."""
        return self.counted or [run for run in self.runs if run.pretraining.status == "done"]

    @cached_property
    def epochs(self) -> int | None:
        """Passes over the training set; None where nothing was trained."""
        return (self.identity["budget"] or {}).get("epochs")

    @cached_property
    def budget_said(self) -> tuple[str, str]:
        """How they were trained, such as ``("200 epochs", "batch 128")``; empty texts where nothing was trained."""
        if self.epochs is None:
            return "", ""
        return epochs_said(self.epochs), f"batch {self.identity['budget']['batch_size']}"

    @cached_property
    def scope(self) -> str:
        """The digest of what rows must share to be compared: how they are judged, and on what."""
        evaluated = next(iter(self.linear.values()))
        judged_by = [evaluated.identity["evaluation"], evaluated.identity["protocol"]]
        return digest([self.runs[0].suite, self.identity["dataset"], self.target, judged_by])

    @cached_property
    def contest(self) -> str:
        """The digest of what rows must share to be ranked together: how long they were trained, too."""
        return digest([self.scope, self.epochs])

    def metrics(self, run: Run, evaluation: str) -> Mapping[str, float]:
        """Return what an evaluation found of one of the runs; nothing where it did not judge it.

        Args:
            run: One of the runs.
            evaluation: A label; ``"linear"`` is the one whose top-1 counts.
        """
        records = self.linear if evaluation == LINEAR else self.evaluations.get(evaluation, {})
        record = records.get(run.pretraining.id)
        return record.metrics if record else {}

    def values(self, evaluation: str, metric: str) -> list[float]:
        """Return a metric of the runs that enter the means and have it."""
        found = [self.metrics(run, evaluation) for run in self.averaged]
        return [float(metrics[metric]) for metrics in found if metric in metrics]


def label(record: EvaluationRecord) -> str:
    """Name an evaluation with those options that differ from their defaults, such as ``finetune[fraction=0.01]``.

    Records without ``options_shown`` in their details were made with default options.
    """
    shown = record.details.get("options_shown", {})
    return f"{record.name}[{shown_options(shown, ',')}]" if shown else record.name


def shown_options(options: Mapping[str, Any], separator: str = "; ") -> str:
    """Write options as text: ``fraction=0.01; sizes=[1, 2]``."""
    said = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items())
    return separator.join(said)


def told_apart(groups: Sequence[Group]) -> list[str]:
    """Say of each row what tells it from the others, such as ``moco_v2, temperature=0.2, 30 epochs``.

    Args:
        groups: Rows of one pretext task.

    Returns:
        Encoder, augmentation, options, budget, precision and data, those in which rows differ, and of options only
        those that not all have; empty for a row that has none of them.
    """
    options = [[shown_options({name: value}) for name, value in group.options_shown.items()] for group in groups]
    shared = set.intersection(*map(set, options)) if options else set()
    marks = [
        [
            (group.identity["encoder"] or {}).get("name", ""),
            str(group.facts.get("augmentation", "")),
            "; ".join(option for option in own if option not in shared),
            *group.budget_said,
            group.identity["precision"],
            group.fingerprint,
        ]
        for group, own in zip(groups, options, strict=True)
    ]
    differing = [column for column in zip(*marks, strict=True) if len(set(column)) > 1]
    return [", ".join(filter(None, (column[i] for column in differing))) for i in range(len(groups))]


def transferred_to(record: EvaluationRecord) -> Mapping[str, Any] | None:
    """Return the identity of the data that a record judges on, where it is not what the run was pretrained on."""
    found: Mapping[str, Any] | None = record.identity.get("dataset")
    return found


def _finished(provenance: Mapping[str, Any]) -> datetime:
    """Read when a record was finished; records from several machines may differ in time zone."""
    if "finished" not in provenance:
        return _NEVER
    moment = datetime.fromisoformat(provenance["finished"])
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _variant(record: EvaluationRecord) -> str:
    identity = record.identity
    return digest([identity["evaluation"], identity["protocol"], *filter(None, [transferred_to(record)])])


def _newness(records: Mapping[str, EvaluationRecord]) -> tuple[datetime, str]:
    return max((_finished(record.provenance), _variant(record)) for record in records.values())


def _content(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what makes data the same; the version of the code that made them does not."""
    return data and {key: value for key, value in data.items() if key != "version"}


def views(run: Run) -> Iterator[Run]:
    """Yield a run once for each kind of data that it was evaluated on, with the evaluations on these alone.

    The data that it was pretrained on come first, and always: nothing that lies beside changes that view.
    """
    found: dict[str, list[EvaluationRecord]] = {"": []}
    for record in run.evaluations:
        target = transferred_to(record)
        found.setdefault(digest(_content(target)) if target else "", []).append(record)
    for records in found.values():
        yield replace(run, evaluations=records)


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Put runs together that differ in nothing but the seed and were evaluated on the same data."""
    found: dict[str, list[Run]] = {}
    for run in chain.from_iterable(map(views, runs)):
        shared = {key: value for key, value in run.pretraining.identity.items() if key != "seed"}
        target = _content(transferred_to(run.evaluations[0])) if run.evaluations else None
        found.setdefault(digest([run.suite, shared, *filter(None, [target])]), []).append(run)
    return [
        Group(key, tuple(sorted(members, key=lambda run: int(run.pretraining.identity["seed"]))))
        for key, members in found.items()
    ]


def without_superseded(groups: Sequence[Group]) -> tuple[list[Group], Counter[str]]:
    """Leave out groups that were run again with newer code, and count them by request."""
    newest: dict[str, Group] = {}
    for group in sorted(groups, key=lambda group: (group.finished, group.key)):
        newest[group.request] = group
    kept = [group for group in groups if group.code == newest[group.request].code]
    return kept, Counter(group.request for group in groups if group.code != newest[group.request].code)

"""Which runs make a row: those that differ in nothing but the seed, without those that newer code superseded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from clvr_bench.records import EvaluationRecord, Run, digest

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Group:
    """The runs of one row.

    Attributes:
        key: The digest of all that they share.
        runs: One a seed, sorted by seed.
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
    def parts(self) -> list[Mapping[str, Any]]:
        """The identities of the plugins they use."""
        identity = self.identity
        found = [identity["pretext_task"], identity["encoder"], *identity["augmentation"], identity["dataset"]]
        return [part for part in found if part]

    @cached_property
    def request(self) -> str:
        """The digest of what was asked for: the same before and after an edit of a plugin's code."""
        shown = self.facts.get("options_shown")
        asked = {key: self.identity[key] for key in ("budget", "precision")}
        asked["names"] = [part["name"] for part in self.parts]
        asked["data"] = self.identity["dataset"]["fingerprint"]
        asked["options"] = [part["options"] for part in self.parts] if shown is None else shown
        asked["recipe"] = self.identity["recipe"] if shown is None else None
        asked["augmentation"] = self.facts.get("augmentation") if shown is not None else None
        return digest([self.runs[0].suite, asked])

    @cached_property
    def code(self) -> str:
        """The digest of the versions, or hashes of code, that they ran with."""
        own = ("name", "options", "fingerprint")
        versions = [{key: value for key, value in part.items() if key not in own} for part in self.parts]
        return digest([versions, self.identity["protocol"]])

    @cached_property
    def finished(self) -> datetime:
        """When the last of them ended."""
        return max(_finished(run.pretraining.provenance) for run in self.runs)

    @cached_property
    def evaluations(self) -> Mapping[str, Mapping[str, EvaluationRecord]]:
        """By evaluation and run's ID: what was found, by the version and options that were used last."""
        found: dict[str, dict[str, dict[str, EvaluationRecord]]] = {}
        for run in self.runs:
            for record in run.evaluations:
                variants = found.setdefault(record.name, {})
                variants.setdefault(_variant(record), {})[run.pretraining.id] = record
        return {name: max(variants.values(), key=_newness) for name, variants in found.items()}

    @cached_property
    def linear(self) -> Mapping[str, EvaluationRecord]:
        """The linear evaluations by run's ID."""
        return self.evaluations.get("linear", {})

    def state(self, run: Run) -> str:
        """Say how one of the runs ended."""
        if run.pretraining.status != "done":
            return run.pretraining.status
        if run.pretraining.id not in self.linear:
            return "not evaluated"
        return "done" if "top1" in self.metrics(run, "linear") else "evaluation failed"

    @cached_property
    def counted(self) -> list[Run]:
        """The runs that enter top-1."""
        return [run for run in self.runs if self.state(run) == "done"]

    @cached_property
    def averaged(self) -> list[Run]:
        """The runs that enter the means."""
        return self.counted or [run for run in self.runs if run.pretraining.status == "done"]

    @cached_property
    def scope(self) -> str:
        """The digest of what ranked rows must share."""
        evaluated = next(iter(self.linear.values()))
        return digest([self.runs[0].suite, self.identity["dataset"], _variant(evaluated)])

    def metrics(self, run: Run, evaluation: str) -> Mapping[str, float]:
        """Return what an evaluation found of one of the runs; nothing where it did not judge it."""
        record = self.evaluations.get(evaluation, {}).get(run.pretraining.id)
        return record.metrics if record else {}

    def values(self, evaluation: str, metric: str) -> list[float]:
        """Return a metric of the runs that enter the means and have it."""
        found = [self.metrics(run, evaluation) for run in self.averaged]
        return [float(metrics[metric]) for metrics in found if metric in metrics]


def _finished(provenance: Mapping[str, Any]) -> datetime:
    """Read when a record was finished; records from several machines may differ in time zone."""
    if "finished" not in provenance:
        return _NEVER
    moment = datetime.fromisoformat(provenance["finished"])
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _variant(record: EvaluationRecord) -> str:
    return digest([record.identity["evaluation"], record.identity["protocol"]])


def _newness(records: Mapping[str, EvaluationRecord]) -> tuple[datetime, str]:
    return max((_finished(record.provenance), _variant(record)) for record in records.values())


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Put runs together that differ in nothing but the seed."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in run.pretraining.identity.items() if key != "seed"}
        found.setdefault(digest([run.suite, shared]), []).append(run)
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

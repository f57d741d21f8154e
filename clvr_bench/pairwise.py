"""The study of pairs of augmentations, from records: top-1 by first and second augmentation. Needs no torch.

Source: A Simple Framework for Contrastive Learning of Visual Representations (SimCLR), Chen et al. 2020, Figure 5,
https://arxiv.org/abs/2002.05709. ``heatmaps`` draws it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from clvr_bench.budgets import epochs_said
from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.groups import ARROW, Group, group_runs, without_superseded
from clvr_bench.records import load_runs
from clvr_bench.significance import half_width
from clvr_bench.standings import COUNT, TEXT
from clvr_bench.tables import NOTHING

if TYPE_CHECKING:
    import pandas as pd

Chain = tuple[str, ...]

COLUMNS: Mapping[str, str | int] = {
    "first": TEXT,
    "second": TEXT,
    "top1_mean": 2,
    "top1_std": 2,
    "top1_ci95": 2,
    "seeds": COUNT,
    "pretext_task": TEXT,
    "encoder": TEXT,
    "dataset": TEXT,
    "epochs": COUNT,
}
"""Every column of ``pair_table`` in order: text, a count, or how many decimals are printed."""

UNCHANGED = "none"
"""The name of the augmentation that changes nothing: alone it is the baseline, and neither a row nor a column."""
LONGEST = 2
"""Links of a chain that has a place in a table of two dimensions."""
WORDS = {"suite": "suite", "pretext_task": "pretext task", "encoder": "encoder", "dataset": "data set"}
"""What the fields of a ``Subject`` are called in errors."""
SHOWN_VALUES = 4
"""Differing values that an error lists; two say what is wrong, and a line must stay one."""


class Score(NamedTuple):
    """Top-1 of the linear evaluation on test, over the seeds that count.

    Attributes:
        mean: Percent, 0 to 100.
        std: Points, standard deviation over seeds (n - 1); None for one seed.
        ci95: Points, half-width of the 95% t interval; None for one seed.
        seeds: How many count.
    """

    mean: float
    std: float | None
    ci95: float | None
    seeds: int


class Subject(NamedTuple):
    """What a study is about; its rows and columns differ in the augmentations alone.

    Attributes:
        suite: The suite's name.
        pretext_task: The pretext task's name.
        encoder: The encoder's name; empty where the task uses none.
        dataset: The data set's title.
    """

    suite: str
    pretext_task: str
    encoder: str
    dataset: str

    def __str__(self) -> str:
        encoder = f" with {self.encoder}" if self.encoder else ""
        return f"{self.pretext_task}{encoder} on {self.dataset}"


@dataclass(frozen=True)
class Study:
    """Scores by chain of augmentations.

    Attributes:
        subject: What all chains share.
        epochs: Of pretraining; None where nothing is trained.
        scores: By chain, one or two labels long; None where no run of it has a score. Neither repeats nor the baseline.
        baseline: Without any augmentation; None where that was not run.
        remarks: What was left out and why, a line each.
    """

    subject: Subject
    epochs: int | None
    scores: Mapping[Chain, Score | None]
    baseline: Score | None = None
    remarks: tuple[str, ...] = ()

    @cached_property
    def names(self) -> list[str]:
        """The labels of rows and columns: the best average first, then by name; those without an average last."""
        averages = {name: self._average(name) for name in self._found}
        return sorted(averages, key=lambda name: (inf if (mean := averages[name]) is None else -mean, name))

    @cached_property
    def averages(self) -> list[float | None]:
        """The mean of each row's scores, in percent, in the order of ``names``: over the cells that are there."""
        return [self._average(name) for name in self.names]

    def cell(self, first: str, second: str) -> Score | None:
        """Return the score of a row and column: on the diagonal, that of the augmentation alone."""
        return self.scores.get((first,) if first == second else (first, second))

    @property
    def is_complete(self) -> bool:
        """Whether every cell has a score."""
        return all(self.cell(first, second) for first in self._found for second in self._found)

    @property
    def sentences(self) -> list[str]:
        """What a reader of the table must know, for its caption."""
        said = [*self._counts(), "diagonal: one augmentation"]
        if self.baseline:
            said.append(f"no augmentation ({UNCHANGED}): {shown(self.baseline)}")
        if not self.is_complete:
            said.append(f"{NOTHING}: no score, and left out of its row's average")
        return [*(f"{part};" for part in said[:-1]), f"{said[-1]}."]

    @cached_property
    def _found(self) -> list[str]:
        return sorted({name for chain in self.scores for name in chain})

    def _counts(self) -> list[str]:
        """Say how many epochs and seeds there are, and what they make of a score."""
        epochs = [epochs_said(self.epochs)] if self.epochs else []
        counts = sorted({score.seeds for score in [*self.scores.values(), self.baseline] if score})
        seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        if counts[-1] == 1:
            return [", ".join([*epochs, "1 seed"])]
        return [*epochs, f"mean ± standard deviation over {seeds} seeds"]

    def _average(self, first: str) -> float | None:
        found = [score.mean for second in self._found if (score := self.cell(first, second))]
        return fmean(found) if found else None


def shown(score: Score) -> str:
    """Write mean and standard deviation, such as ``69.2 ± 0.4``; the mean alone for a single seed."""
    return f"{score.mean:.1f}" + ("" if score.std is None else f" ± {score.std:.1f}")


def pair_study(
    results: Path,
    suite: str | None = None,
    *,
    pretext_task: str | None = None,
    encoder: str | None = None,
    dataset: str | None = None,
    on_damaged: Callable[[str], None] | None = None,
) -> Study:
    """Derive the study of pairs from the records below a results folder.

    A study is of one suite, pretext task, encoder and data set, and has at least one chain of two augmentations; chains
    of one belong to it too. Scores on other data than the runs were pretrained on are a study of their own, which is
    looked at only where ``dataset`` names both, such as ``"shapes → digits"``; ``" -> "`` serves too. A chain of an
    augmentation with itself is not that augmentation alone: it is left out, as are longer chains, and a remark says so.
    Links of one name whose options or versions differ have labels of their own, which show what differs.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.
        pretext_task: The only pretext task wanted.
        encoder: The only encoder wanted.
        dataset: The only data set wanted.
        on_damaged: Is told of records that cannot be read, a line each; what they are about is then left out.

    Raises:
        ClvrBenchError: There are no runs, no pairs, no scores or several studies; a record cannot be read and nobody is
            told; or chains differ in more than their links, so that they cannot be compared.
    """
    groups = without_superseded(group_runs(load_runs(results, suite, on_damaged)))[0]
    if dataset is None:
        groups = [group for group in groups if group.target is None]
    else:
        dataset = dataset.replace(" -> ", ARROW)
    studies = {subject: found for subject, found in _by_subject(groups).items() if _pairs(found)}
    if not studies:
        hint = 'A suite asks for one with a list in its list: augmentations = [["FIRST", "SECOND"]].'
        raise ClvrBenchError(f"{results}: no chain of two augmentations among the runs. {hint}")
    wanted = {"pretext_task": pretext_task, "encoder": encoder, "dataset": dataset}
    subject = _only(results, list(studies), {field: name for field, name in wanted.items() if name})
    return _study(subject, studies[subject])


def pair_table(study: Study) -> pd.DataFrame:
    """Return a study in long form, a row a chain, with the columns of ``COLUMNS``.

    Accuracies are in percent; ``second`` is empty where the first augmentation is alone. The baseline comes first, then
    the chains in the order of the study's rows and columns, each augmentation alone before its pairs.
    """
    import pandas as pd  # imports in half a second, which the records' other readers need not wait for

    place = {name: position for position, name in enumerate(["", *study.names])}
    chains = sorted(study.scores, key=lambda chain: [place[name] for name in chain])
    scores = [*([((UNCHANGED,), study.baseline)] if study.baseline else []), *((c, study.scores[c]) for c in chains)]
    frame = pd.DataFrame([_table_row(study, chain, score) for chain, score in scores], columns=list(COLUMNS))
    types = {TEXT: "object", COUNT: "Int64"}
    return frame.astype({name: types.get(str(kind), "float64") for name, kind in COLUMNS.items()})


def _table_row(study: Study, chain: Chain, score: Score | None) -> dict[str, Any]:
    first, second = (*chain, "")[:LONGEST]
    return {
        "first": first,
        "second": second,
        "top1_mean": score.mean if score else None,
        "top1_std": score.std if score else None,
        "top1_ci95": score.ci95 if score else None,
        "seeds": score.seeds if score else 0,
        "pretext_task": study.subject.pretext_task,
        "encoder": study.subject.encoder,
        "dataset": study.subject.dataset,
        "epochs": study.epochs,
    }


def _by_subject(groups: Iterable[Group]) -> dict[Subject, list[Group]]:
    """Put groups together that can be cells of one table, those whose tasks take no augmentation left out."""
    found: dict[Subject, list[Group]] = {}
    for group in groups:
        if group.identity["augmentation"]:
            found.setdefault(_subject(group), []).append(group)
    return found


def _subject(group: Group) -> Subject:
    identity = group.identity
    encoder = identity["encoder"]["name"] if identity["encoder"] else ""
    return Subject(group.runs[0].suite, identity["pretext_task"]["name"], encoder, group.dataset)


def _pairs(groups: Iterable[Group]) -> list[Group]:
    return [group for group in groups if len(group.identity["augmentation"]) == LONGEST]


def _only(results: Path, subjects: Sequence[Subject], wanted: Mapping[str, str]) -> Subject:
    """Choose the one study that is wanted.

    Raises:
        ClvrBenchError: There is no such study, or there are several.
    """
    left = subjects
    for field, name in wanted.items():
        available = {getattr(subject, field) for subject in left}
        if name not in available:
            raise ClvrBenchError(f"{results}, pairs of augmentations: {unknown(WORDS[field], name, available)}")
        left = [subject for subject in left if getattr(subject, field) == name]
    for field in Subject._fields if len(left) > 1 else ():
        names = sorted({getattr(subject, field) for subject in left})
        if len(names) > 1:
            listed = f"pairs of augmentations in more than one {WORDS[field]} ({', '.join(names)})"
            raise ClvrBenchError(f"{results}: {listed}. Choose one, such as --{field.replace('_', '-')} {names[0]}.")
    return left[0]


def _study(subject: Subject, groups: Sequence[Group]) -> Study:
    """Make a study of the groups that share a subject.

    Raises:
        ClvrBenchError: None has a score, or they differ in more than their chains.
    """
    kept = [group for group in groups if len(group.identity["augmentation"]) <= LONGEST]
    _check_one_setting(subject, kept)
    labels = _labels(kept)
    scores = {labels[group.key]: _score(group) for group in kept}
    repeats = [chain for chain in scores if len(chain) > len(set(chain))]
    has_own_row = any(UNCHANGED in chain for chain in scores if len(set(chain)) > 1)
    baseline = None if has_own_row else scores.pop((UNCHANGED,), None)
    if not any(scores[chain] for chain in scores if chain not in repeats):
        raise ClvrBenchError(f"{subject.suite}: no chain of augmentations has a top-1 yet. Run the suite to its end.")
    remarks = _remarks(repeats, len(groups) - len(kept))
    kept_scores = {chain: score for chain, score in scores.items() if chain not in repeats}
    return Study(subject, (kept[0].identity["budget"] or {}).get("epochs"), kept_scores, baseline, tuple(remarks))


def _remarks(repeats: Sequence[Chain], longer: int) -> Iterator[str]:
    for first, second in repeats:
        yield f"{first}+{second} left out: applied twice is not the augmentation alone, which the diagonal shows."
    if longer:
        yield f"{longer} {'chain' if longer == 1 else 'chains'} of more than two augmentations left out."


def _score(group: Group) -> Score | None:
    values = group.values("linear", "top1")
    if not values:
        return None
    std, ci95 = (stdev(values), half_width(values)) if len(values) > 1 else (None, None)
    return Score(fmean(values), std, ci95, len(values))


def _check_one_setting(subject: Subject, groups: Sequence[Group]) -> None:
    """Refuse chains whose scores cannot be compared.

    Raises:
        ClvrBenchError: Runs differ in more than augmentations and seed.
    """
    trained = [{k: v for k, v in group.identity.items() if k not in ("augmentation", "seed")} for group in groups]
    trained = [{**identity, "evaluated on": group.target} for identity, group in zip(trained, groups, strict=True)]
    records = [next(iter(group.linear.values())) for group in groups if group.linear]
    judged = [{key: record.identity[key] for key in ("evaluation", "protocol")} for record in records]
    differing = [*_differing(trained), *_differing([{"linear": identity} for identity in judged])]
    if differing:
        hint = "Run the suite again, or keep every setting in a suite of its own."
        raise ClvrBenchError(f"{subject.suite}: its chains differ in more than augmentations: {differing[0]}. {hint}")


def _differing(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where nested mappings differ, each place with its values; a part that one lacks is null."""
    flat = [dict(_flattened(identity)) for identity in identities]
    paths = sorted({path for leaves in flat for path in leaves})
    found = {path: sorted({leaves.get(path, "null") for leaves in flat}) for path in paths}
    return [f"{path} is {_listed(values)}" for path, values in found.items() if len(values) > 1]


def _listed(values: Sequence[str]) -> str:
    more = ["..."] if len(values) > SHOWN_VALUES else []
    return ", ".join([*values[:SHOWN_VALUES], *more])


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every leaf of nested mappings as JSON, which keeps ``null`` from ``"null"``, by its dotted path."""
    if not isinstance(value, Mapping) or not value:
        yield path, json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return
    for key, part in value.items():
        yield from _flattened(part, f"{path}.{key}" if path else str(key))


def _labels(groups: Iterable[Group]) -> dict[str, Chain]:
    """Return the labels of each group's links by its key: names, and what tells links of one name apart."""
    chains = {group.key: [_link(part) for part in group.identity["augmentation"]] for group in groups}
    variants: dict[str, list[Mapping[str, str]]] = {}
    for name, settings in (link for links in chains.values() for link in links):
        variants.setdefault(name, []).append(settings)
    return {key: tuple(_label(name, s, variants[name]) for name, s in links) for key, links in chains.items()}


def _link(part: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a link's name, and its version and options as text."""
    return part["name"], {"version": str(part["version"]), **dict(_flattened(part["options"]))}


def _label(name: str, settings: Mapping[str, str], variants: Sequence[Mapping[str, str]]) -> str:
    keys = sorted({key for variant in variants for key in variant})
    telling = [key for key in keys if len({variant.get(key) for variant in variants}) > 1]
    said = ", ".join(f"{key}={settings[key]}" for key in telling if key in settings)
    return f"{name} ({said})" if said else name

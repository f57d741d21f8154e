"""Where combinations stand before a sweep: their data loaded, their encoders known, what is done found on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from clvr_bench.assembly import build_augmentation, build_task, encoder_facts, skip_reason
from clvr_bench.combinations import Choice, Combination
from clvr_bench.contracts.values import EncoderFacts
from clvr_bench.data import Access, Data, load
from clvr_bench.errors import CannotWrite, ClvrBenchError, DamagedFile
from clvr_bench.evaluating import missing_evaluations
from clvr_bench.files import try_writing
from clvr_bench.optimization import check_optimizer
from clvr_bench.records import CHECKPOINT, WEIGHTS, EvaluationRecord, PretrainingRecord, Run

Standing = Literal["skipped", "done", "evaluate", "resume", "to do"]
"""Of a combination before it runs; ``evaluate`` where only evaluations are missing."""


@dataclass(frozen=True)
class Planned:
    """A combination with its data, its place on disk, and how far it is.

    Attributes:
        combination: What is asked.
        data: On the training device.
        identity: Of its pretraining record.
        facts: Of its pretraining record, as far as they are known before it is built.
        skip: Why it makes no sense; empty where it does.
        folder: The run's folder.
        standing: How far it is.
    """

    combination: Combination
    data: Data
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    skip: str
    folder: Path
    standing: Standing

    @property
    def id(self) -> str:
        """Of its pretraining record."""
        return PretrainingRecord(self.identity).id


def require_writable(folder: Path) -> None:
    """Make a folder and try to write into it.

    Raises:
        ClvrBenchError: It cannot be written.
    """
    try:
        try_writing(folder)
    except CannotWrite as error:
        raise ClvrBenchError(f"--results: cannot write to {folder} ({error.reason}). Name another folder.") from None


def place(
    combinations: list[Combination], folder: Path, *, device: torch.device, precision: str, access: Access
) -> list[Planned]:
    """Load the data of combinations, learn their encoders, and see how far each is; nothing is trained.

    Args:
        combinations: In the order in which they will run.
        folder: The suite's.
        device: Where they will run.
        precision: ``"bf16"`` or ``"fp32"``.
        access: How the data are reached.

    Raises:
        ClvrBenchError: Anything a user can mend, before any time is spent.
    """
    data = _load_data(combinations, access, device)
    encoders = _learn_encoders(combinations, data)
    return [
        _place(combination, data[str(combination.dataset)], encoders, precision, folder) for combination in combinations
    ]


def _load_data(combinations: Iterable[Combination], access: Access, device: torch.device) -> dict[str, Data]:
    loaded: dict[str, Data] = {}
    for combination in combinations:
        choice = combination.dataset
        if str(choice) not in loaded:
            loaded[str(choice)] = load(choice, access, device)
        count = len(loaded[str(choice)].pretraining(combination.task.task.labels))
        if combination.task.task.trains and combination.budget.batch_size > count:
            raise ClvrBenchError(
                f"batch_size {combination.budget.batch_size} is larger than the {count} training samples of "
                f"{loaded[str(choice)].title}. Choose a smaller one, such as --batch-size {max(2, count // 8)}."
            )
    return loaded


def _learn_encoders(combinations: Iterable[Combination], data: Mapping[str, Data]) -> dict[str, EncoderFacts]:
    """Learn every encoder's facts at every size it will meet."""
    found: dict[str, EncoderFacts] = {}
    for combination in combinations:
        key = _encoder_key(combination)
        if combination.encoder and key not in found:
            found[key] = encoder_facts(combination.encoder, data[str(combination.dataset)].facts("none"))
    return found


def _encoder_key(combination: Combination) -> str:
    return f"{combination.encoder} on {combination.dataset}"


def _place(
    combination: Combination, data: Data, encoders: Mapping[str, EncoderFacts], precision: str, suite_folder: Path
) -> Planned:
    identity = combination.identity(data.fingerprint, precision)
    task = combination.task.task
    facts = {
        "dataset": data.title,
        "num_classes": data.num_classes,
        "class_names": list(data.dataset.class_names),
        "augmentation": _describe_augmentation(combination, data),
        "labels": task.reported_labels(**combination.task.options),
        "ranked": task.ranked,
        "options_source": combination.task.options_source,
        "options_shown": combination.options_shown,
        "data": asdict(data.facts(task.labels)),
        **({"data_notes": list(data.notes)} if data.notes else {}),
    }
    skip = skip_reason(combination, data, encoders.get(_encoder_key(combination))) or ""
    if task.trains:
        check_optimizer(combination.task.recipe, f"pretext task '{combination.task.entry.name}', recipe")
    if not skip:
        _try_construction(combination, data)
    folder = suite_folder / "runs" / PretrainingRecord(identity, facts=facts).folder_name
    return Planned(combination, data, identity, facts, skip, folder, standing_of(folder, combination, skip))


def _describe_augmentation(combination: Combination, data: Data) -> str:
    described = []
    for choice in combination.augmentation:
        augmentation = build_augmentation((choice,), data.facts(combination.task.task.labels))
        setting = [augmentation.setting] if augmentation and augmentation.setting else []
        changed = [f"{name}={value}" for name, value in choice.changed_shown.items()]
        described.append(choice.entry.name + (f" ({', '.join(setting + changed)})" if setting or changed else ""))
    return " + ".join(described)


def _try_construction(combination: Combination, data: Data) -> None:
    """Let a task refuse its options now, not after an hour of other runs; whatever else it raises fails its own run."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            build_task(
                combination.task, combination.encoder, combination.seed, data.facts(combination.task.task.labels)
            )
    except ClvrBenchError:
        raise
    except Exception:
        return


def standing_of(folder: Path, combination: Combination, skip: str) -> Standing:
    """See how far a run is; what is damaged counts as not done.

    Args:
        folder: The run's.
        combination: What is asked.
        skip: Why it makes no sense; empty where it does.

    Raises:
        ClvrBenchError: A record was written by a newer version.
    """
    if skip:
        return "skipped"
    missing = _left_to_evaluate(folder, combination)
    if missing is not None and not missing:
        return "done"
    if missing is not None and (folder / WEIGHTS).is_file():
        return "evaluate"
    return "resume" if (folder / CHECKPOINT).is_file() else "to do"


def _left_to_evaluate(folder: Path, combination: Combination) -> Sequence[Choice] | None:
    """Return what a pretrained run lacks, everything where something is damaged; None where it is not pretrained."""
    path, broken = folder / "pretraining.json", [damaged for damage in damages(folder) for damaged in damage.paths]
    if path in broken or not path.is_file():
        return None
    record = PretrainingRecord.load(path)
    if record.status != "done":
        return None
    return combination.evaluations if broken else missing_evaluations(folder, record.id, combination.evaluations)


class Damage(NamedTuple):
    """Files of a run that are not what was written.

    Attributes:
        paths: What is of no use any more.
        reason: What is wrong, in a sentence.
    """

    paths: tuple[Path, ...]
    reason: str


def damages(folder: Path) -> Iterator[Damage]:
    """Look through a run's records and predictions for what is damaged.

    Raises:
        ClvrBenchError: A record was written by a newer version.
    """
    path = folder / "pretraining.json"
    try:
        run = Run(folder, PretrainingRecord.load(path), []) if path.is_file() else None
    except DamagedFile as error:
        run = None
        yield Damage((path,), str(error))
    for path in sorted((folder / "evaluations").glob("*.json")):
        try:
            record = EvaluationRecord.load(path)
        except DamagedFile as error:
            yield Damage((path,), str(error))
            continue
        if run and record.predictions:
            try:
                run.predictions(record)
            except ClvrBenchError as error:
                predictions = path.with_suffix(".npz")
                yield Damage((path, predictions) if predictions.exists() else (path,), str(error))

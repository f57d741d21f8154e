"""What every plugin must keep, as checks that an author's tests and ``clvr-bench check`` put to it.

In a test file of your own::

    import pytest
    from clvr_bench.testing import conformance

    @pytest.mark.parametrize("check", conformance("pretext task", "view_pair"), ids=str)
    def test_it_keeps_the_contract(check):
        check()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Kind
from clvr_bench.testing import augmentations, datasets, encoders, evaluations, pretext_tasks
from clvr_bench.testing.checks import Check as Check
from clvr_bench.testing.checks import Finding as Finding
from clvr_bench.testing.checks import NotApplicable as NotApplicable
from clvr_bench.testing.checks import Violation as Violation
from clvr_bench.testing.subject import Subject as Subject
from clvr_bench.testing.task_trial import TaskTrial

__all__ = ["Check", "Finding", "NotApplicable", "Subject", "Violation", "checks_of", "conformance"]

_KINDS = {
    Kind.PRETEXT_TASK: (TaskTrial, pretext_tasks.RULES),
    Kind.ENCODER: (encoders.EncoderTrial, encoders.RULES),
    Kind.AUGMENTATION: (augmentations.AugmentationTrial, augmentations.RULES),
    Kind.DATASET: (datasets.DatasetTrial, datasets.RULES),
    Kind.EVALUATION: (evaluations.EvaluationTrial, evaluations.RULES),
}


def conformance(
    kind: str,
    name: str,
    *,
    plugins: Iterable[Path] = (),
    options: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
) -> list[Check]:
    """Return the checks of a registered plugin; call each in a test.

    Args:
        kind: ``"pretext task"``, ``"encoder"``, ``"augmentation"``, ``"dataset"`` or ``"evaluation"``.
        name: As it is registered.
        plugins: Folders of plugin files, or single files, to load besides what is installed.
        options: On top of the plugin's defaults and, of a pretext task, its ``check_options``.
        data_root: Where a data set's files are.

    Raises:
        ClvrBenchError: There is no such kind, name or option.
    """
    if kind not in list(Kind):
        raise ClvrBenchError(unknown("kind of plugin", kind, [kind.value for kind in Kind]))
    registry = load_plugins(plugins).registry
    return checks_of(Subject(registry.get(Kind(kind), name), registry, options or {}, data_root))


def checks_of(subject: Subject) -> list[Check]:
    """Return the checks of a plugin.

    Raises:
        ClvrBenchError: An option is wrong.
    """
    make_trial, rules = _KINDS[subject.entry.kind]
    trial = make_trial(subject)
    return [Check(rule, trial) for rule in rules]

"""The hooks that a plugin may implement. A plugin marks its functions with ``hookimpl`` and holds no registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from clvr_bench.records import EvaluationRecord, PretrainingRecord

PROJECT = "clvr_bench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The callback that registers one name, or a family of names."""

    def __call__(self, name: str, factory: Callable[..., Any], *, summary: str, source: str, version: int) -> None:
        """Register a name.

        Args:
            name: Lower case, such as ``"simclr"``; the file's stem, or of its family.
            factory: The class or function that builds it; its keyword-only, typed arguments are its options.
            summary: One sentence for ``clvr-bench list``.
            source: Paper or project with year and link; ``"none"`` where it is the author's own.
            version: Counted from 1, bumped on any edit that can change a score.

        Raises:
            PluginError: The declaration is incomplete or breaks the contract.
        """

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
        """Register all names that a library resolves.

        Args:
            name: What the family is called.
            names: Lists the names; called only when a name is found nowhere else, or for ``clvr-bench list``.
            factory: Gives the factory of one of them.
            summary: One sentence.
            source: The library.
            version: As above.
        """


class Hooks:
    """The specifications: when each hook is called, and with what."""

    @hookspec
    def register_pretext_tasks(self, register: Register) -> None:
        """Register pretext tasks, ``factory(encoder, data, **options)``; called once, when plugins are loaded."""

    @hookspec
    def register_encoders(self, register: Register) -> None:
        """Register encoders, ``factory(**options)``; called once, when plugins are loaded."""

    @hookspec
    def register_augmentations(self, register: Register) -> None:
        """Register augmentations, ``factory(data, **options)``; called once, when plugins are loaded."""

    @hookspec
    def register_datasets(self, register: Register) -> None:
        """Register data sets, ``factory(root, **options)``; called once, when plugins are loaded."""

    @hookspec
    def register_evaluations(self, register: Register) -> None:
        """Register evaluations, ``factory(**options)``; called once, when plugins are loaded."""

    @hookspec
    def run_started(self, run: str, folder: Path, identity: Mapping[str, Any]) -> None:
        """Observe that a pretraining starts or resumes.

        Args:
            run: The name of the run's folder.
            folder: The run's folder, ``SUITE/runs/RUN`` in the folder of results; what lies in it is the harness's own.
            identity: As in the pretraining record.
        """

    @hookspec
    def epoch_finished(self, run: str, folder: Path, epoch: Mapping[str, Any]) -> None:
        """Observe a finished epoch.

        Args:
            run: The name of the run's folder.
            folder: As above.
            epoch: The history's entry: ``epoch, loss, learning_rate, knn_top1, seconds`` and the task's logs.
        """

    @hookspec
    def run_finished(self, run: str, folder: Path, record: PretrainingRecord) -> None:
        """Observe that a pretraining ended: done, failed or skipped.

        Args:
            run: The name of the run's folder.
            folder: As above.
            record: Its pretraining record.
        """

    @hookspec
    def evaluation_finished(self, run: str, folder: Path, record: EvaluationRecord) -> None:
        """Observe that an evaluation of a sweep ended, or failed; ``run_finished`` was called before it.

        Not called where finished runs are judged again, on other data or by other evaluations.

        Args:
            run: The name of the run's folder.
            folder: As above.
            record: The evaluation's record; its ``error`` is empty where it did not fail.
        """

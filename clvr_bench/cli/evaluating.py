"""``clvr-bench evaluate``: finished runs, or weights that exist already; what was asked, and which of them it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clvr_bench.cli.judging import evaluate_runs
from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.cli.reading import ReadingFlags
from clvr_bench.cli.ready_made import evaluate_weights
from clvr_bench.errors import ClvrBenchError


@dataclass(frozen=True)
class EvaluateRequest:
    """The flags of ``evaluate``, as they were given."""

    runs: list[str]
    take_all: bool
    weights: Path | None
    encoder: str | None
    weights_format: str | None
    partial: bool
    labels: str | None
    name: str | None
    suite: str | None
    evaluations: list[str]
    dataset: str | None
    reading: ReadingFlags
    overrides: list[str]
    results: Path
    device: str
    plugins: PluginFlags

    @property
    def of_weights(self) -> list[str]:
        """The flags that were given and that only ready-made weights have."""
        flags = {
            "--encoder": self.encoder,
            "--weights-format": self.weights_format,
            "--partial": self.partial,
            "--labels": self.labels,
            "--name": self.name,
            "--suite": self.suite,
        }
        return [flag for flag, value in flags.items() if value]


def evaluate_request(request: EvaluateRequest) -> int:
    """Evaluate what was asked and return the exit code: 0 all done, 1 something failed.

    Raises:
        ClvrBenchError: Runs and weights were asked for, or neither, or something in what was asked is to be mended.
    """
    if request.weights and (request.runs or request.take_all):
        raise ClvrBenchError(
            "evaluate: RUN and --weights exclude each other. Name finished runs, or a file of weights."
        )
    if request.weights:
        return evaluate_weights(request, request.weights)
    if request.of_weights:
        raise ClvrBenchError(f"evaluate: {request.of_weights[0]} needs --weights FILE. Name a file, or leave it out.")
    if not request.runs and not request.take_all:
        raise ClvrBenchError(
            "evaluate: name a run, or --all, or --weights FILE. 'clvr-bench runs' shows what there is."
        )
    return evaluate_runs(request)
